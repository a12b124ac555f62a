"""The custom operator of recurrent layers: all steps of a layer in one direction.

`aoti.exporting.passes.recurrence_template` makes its kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aoti.exporting.passes.operators import NAMESPACE

# Gates of each kind of layer, in the order of torch's weights.
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


def in_blocks(weight: Tensor, gates: int) -> Tensor:
    """A matrix in the blocks of columns that the kernel reads.

    Parameters
    ----------
    weight : Tensor
        (gates times units, inputs), gate after gate, as torch has it.
    gates : int
        The number of gates.

    Returns
    -------
    Tensor
        (blocks, inputs, gates times units of a block), gate after gate in each block. The last
        block is filled up with zeros.
    """
    units, inputs = 16 if gates > 1 else 48, weight.shape[1]
    missing = -(weight.shape[0] // gates) % units
    whole = torch.nn.functional.pad(weight.view(gates, -1, inputs), (0, 0, 0, missing))
    blocks = whole.view(gates, -1, units, inputs).permute(1, 3, 0, 2)
    return blocks.reshape(-1, inputs, gates * units)


def _of_blocks(blocks: Tensor, gates: int, units: int) -> Tensor:
    """The matrix that `in_blocks` got."""
    count, inputs, _ = blocks.shape
    by_gate = blocks.view(count, inputs, gates, -1).permute(2, 0, 3, 1)
    return by_gate.reshape(gates, -1, inputs)[:, :units].reshape(-1, inputs)


@torch.library.custom_op(f"{NAMESPACE}::recurrent_layer", mutates_args=())
def recurrent_layer(
    kind: str,
    gates: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
    lengths: Tensor | None,
    batch_first: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of a recurrent layer in one direction.

    Parameters
    ----------
    kind : {'lstm', 'gru', 'tanh', 'relu'}
        What a step computes; the last two are plain layers with that activation.
    gates : Tensor
        (steps, batch, gates times units), or batch first: what the inputs give to the gates.
    hidden, cell : Tensor
        (batch, outputs) and (batch, units): the states before the first step. There are as many
        outputs as units, unless there is a projection. Only an LSTM has a cell state.
    weight : Tensor
        What `in_blocks` returns for the weights of the hidden state.
    bias : Tensor, optional
        (units,): added to the product for the last gate of a GRU.
    projection : Tensor, optional
        What `in_blocks` returns for the projection of an LSTM.
    lengths : Tensor, optional
        (batch,) of int64: the steps of each sequence. Results of later steps are zero, and the
        states stay as they are.
    batch_first, reverse : bool
        The order of `gates`, and whether the last step is computed first.

    Returns
    -------
    output : Tensor
        The hidden states after each step, in the order of `gates`.
    hidden, cell : Tensor
        The states in the end.
    """
    over = gates.transpose(0, 1) if batch_first else gates
    count, units = GATES[kind], gates.shape[2] // GATES[kind]
    of_hidden = _of_blocks(weight, count, units).t()
    output = over.new_zeros(*over.shape[:2], hidden.shape[1])
    for step in reversed(range(len(over))) if reverse else range(len(over)):
        new, new_cell = _step(kind, over[step], hidden @ of_hidden, hidden, cell, bias)
        if projection is not None:
            new = new @ _of_blocks(projection, 1, hidden.shape[1]).t()
        if lengths is None:
            output[step], hidden, cell = new, new, new_cell
            continue
        lasts = (step < lengths)[:, None]
        output[step] = torch.where(lasts, new, 0)
        hidden = torch.where(lasts, new, hidden)
        cell = None if cell is None else torch.where(lasts, new_cell, cell)
    output = output.transpose(0, 1).contiguous() if batch_first else output
    return output, hidden.clone(), gates.new_empty(0) if cell is None else cell.clone()


def _step(
    kind: str, given: Tensor, product: Tensor, hidden: Tensor, cell: Any, bias: Tensor | None
) -> tuple[Tensor, Any]:
    """The states after a step."""
    if kind in ("tanh", "relu"):
        return getattr(torch, kind)(given + product), None
    if kind == "gru":
        of_input, of_hidden = given.chunk(3, 1), product.chunk(3, 1)
        reset, keep = (torch.sigmoid(of_input[n] + of_hidden[n]) for n in (0, 1))
        new = torch.tanh(of_input[2] + reset * (of_hidden[2] + (0 if bias is None else bias)))
        return (hidden - new) * keep + new, None
    add, keep, new, show = (given + product).chunk(4, 1)
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(add) * torch.tanh(new)
    return torch.sigmoid(show) * torch.tanh(cell), cell


@recurrent_layer.register_fake
def _(
    _kind: str, gates: Tensor, hidden: Tensor, cell: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    output = gates.new_empty(*gates.shape[:2], hidden.shape[1])
    last = gates.new_empty(hidden.shape)
    return output, last, gates.new_empty(0 if cell is None else cell.shape)
