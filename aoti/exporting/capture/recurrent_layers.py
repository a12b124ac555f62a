"""Recurrent layers as operators over whole sequences, while a module is traced.

torch traces LSTM, GRU and RNN step by step, which fixes the number of steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aoti.exporting.capture.packed_sequences import UNSUPPORTED, PackedData, any_batch, pack, pad
from aoti.exporting.passes.recurrence import GATES, in_blocks, recurrent_layer

_KINDS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "tanh", "rnn_relu": "relu"}


@contextlib.contextmanager
def whole_sequences() -> Iterator[None]:
    """Let recurrent layers of float32 on CPUs become `recurrent_layer`."""
    with any_batch(), _WholeSequences():
        yield


class _WholeSequences(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Any = None,
    ) -> Any:
        """Call a function of torch, or replace the call."""
        name = getattr(func, "__name__", "")
        if name in _KINDS and len(args) == 9:
            if isinstance(args[0], PackedData):
                return _packed_layers(_KINDS[name], *args)
            if isinstance(args[2], (list, tuple)) and _is_covered(*args[:3], *args[5:7]):
                return _layers(_KINDS[name], None, *args)
        elif name == "_pack_padded_sequence" and _is_plain(args[0]):
            return pack(*args)
        elif name == "_pad_packed_sequence" and isinstance(args[0], PackedData):
            return pad(*args)
        return func(*args, **(kwargs or {}))


def _is_covered(x: Tensor, hx: Any, params: Sequence[Tensor], dropout: float, train: bool) -> bool:
    states = hx if isinstance(hx, (list, tuple)) else [hx]
    return not (train and dropout) and all(map(_is_plain, (x, *states, *params)))


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _packed_layers(
    kind: str,
    data: PackedData,
    _batch_sizes: Any,
    hx: Any,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Any, ...]:
    """All layers of packed sequences: the arguments are those of ``torch.lstm`` and its like."""
    x, lengths, first = data.padded, data.lengths, data.batch_first
    if not _is_covered(x, hx, params, dropout, train):
        raise NotImplementedError(UNSUPPORTED)
    settings = has_biases, num_layers, dropout, train, bidirectional, first
    output, *states = _layers(kind, lengths, x, hx, params, *settings)
    return PackedData(output, lengths, first), *states


def _layers(
    kind: str,
    lengths: Tensor | None,
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
                lengths,
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
