"""Recurrent layers as operators over whole sequences, while a module is traced.

torch traces LSTM, GRU and RNN step by step, which fixes the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aoti.exporting.passes.recurrence import GATES, in_blocks, recurrent_layer

_KINDS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "tanh", "rnn_relu": "relu"}


class WholeSequences(TorchFunctionMode):
    """A mode in which recurrent layers of float32 on CPUs become `recurrent_layer`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Any = None,
    ) -> Any:
        """Call a function of torch, or replace the call."""
        kind = _KINDS.get(getattr(func, "__name__", ""))
        if kind and not kwargs and _is_covered(args):
            return _layers(kind, *args)
        return func(*args, **(kwargs or {}))


def _is_covered(args: Sequence[Any]) -> bool:
    if len(args) != 9 or not isinstance(args[2], (list, tuple)):
        return False
    x, hx, params, _, _, dropout, train, _, _ = args
    tensors = [x, *(hx if isinstance(hx, (list, tuple)) else [hx]), *params]
    return not (train and dropout) and all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors
    )


def _layers(
    kind: str,
    x: Tensor,
    hx: Any,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    _dropout: float,
    _train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """All layers: the arguments and results are those of ``torch.lstm`` and its like."""
    hidden, cell = hx if kind == "lstm" else (hx, None)
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    lasts: list[tuple[Tensor, Tensor]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            of_input, of_hidden, *others = params[number * each : (number + 1) * each]
            biases = [others.pop(0), others.pop(0)] if has_biases else None
            gates, bias = _gates(kind, x, of_input, biases)
            output, *last = recurrent_layer(
                kind,
                gates,
                hidden[number],
                None if cell is None else cell[number],
                in_blocks(of_hidden, GATES[kind]),
                bias,
                in_blocks(others[0], 1) if others else None,
                None,
                batch_first,
                direction == 1,
            )
            outputs.append(output)
            lasts.append(last)
        x = torch.cat(outputs, 2) if bidirectional else outputs[0]
    hiddens, cells = zip(*lasts, strict=True)
    return (x, torch.stack(hiddens), *([torch.stack(cells)] if kind == "lstm" else []))


def _gates(kind: str, x: Tensor, weight: Tensor, biases: Any) -> tuple[Tensor, Tensor | None]:
    """What the inputs and the biases give to the gates, and the bias that must be added later."""
    if biases is None:
        return torch.nn.functional.linear(x, weight), None
    of_input, of_hidden = biases
    if kind != "gru":
        return torch.nn.functional.linear(x, weight, of_input + of_hidden), None
    units = len(of_hidden) // 3
    early = torch.nn.functional.pad(of_hidden[: 2 * units], (0, units))
    return torch.nn.functional.linear(x, weight, of_input + early), of_hidden[2 * units :]
