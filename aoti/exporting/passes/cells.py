"""A rewrite of recurrent cells: their products become linear layers with weights in blocks.

Inductor calls a library function for each product of a cell, and rearranges the weights in every
call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.graph_editing import Rewritten, arguments, copied, finished, replace
from aoti.exporting.passes.linears import are_own, layer

aten = torch.ops.aten


def open_cells(program: torch.export.ExportedProgram) -> Rewritten:
    """Compute recurrent cells (LSTM, GRU, RNN) by linear layers and elementwise operators.

    This needs frozen weights, or a call would rearrange the weights.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    program : torch.export.ExportedProgram
        A program with the same weights; `program` itself if there is no cell.
    report : list of str
        One line, if there is any.
    """
    if not _cells(program):
        return program, []
    program = copied(program)
    cells = _cells(program)
    for node in cells:
        tensors = _tensors(node)
        replace(node, _CELLS[node.target], tensors)
    return finished(program), [f"{len(cells)} with weights in blocks"]


def _cells(program: torch.export.ExportedProgram) -> list[Node]:
    nodes = (node for node in program.graph.nodes if node.target in _CELLS)
    return [node for node in nodes if are_own(program, _weights(node))]


def _weights(node: Node) -> list[Node]:
    called = arguments(node)
    return [called["w_ih"], called["w_hh"]]


def _tensors(node: Node) -> list[Node]:
    called = arguments(node)
    states = called["hx"] if isinstance(called["hx"], (list, tuple)) else [called["hx"]]
    biases = [called[name] for name in ("b_ih", "b_hh") if called[name] is not None]
    return [called["input"], *states, *_weights(node), *biases]


def _gates(x: Tensor, hidden: Tensor, tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """What the input and the hidden state give to the gates."""
    of_input, of_hidden, *biases = tensors
    one, other = biases or (None, None)
    return layer(x, of_input, one), layer(hidden, of_hidden, other)


def _lstm(x: Tensor, hidden: Tensor, cell: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    one, other = _gates(x, hidden, tensors)
    add, keep, new, show = (one + other).chunk(4, 1)
    cell = keep.sigmoid() * cell + add.sigmoid() * new.tanh()
    return show.sigmoid() * cell.tanh(), cell


def _gru(x: Tensor, hidden: Tensor, *tensors: Tensor) -> Tensor:
    one, other = (gates.chunk(3, 1) for gates in _gates(x, hidden, tensors))
    reset, keep = (one[0] + other[0]).sigmoid(), (one[1] + other[1]).sigmoid()
    new = (one[2] + reset * other[2]).tanh()
    return (hidden - new) * keep + new


def _rnn(activation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def rnn(x: Tensor, hidden: Tensor, *tensors: Tensor) -> Tensor:
        one, other = _gates(x, hidden, tensors)
        return activation(one + other)

    return rnn


_CELLS: dict[Any, Callable[..., Any]] = {
    aten.lstm_cell.default: _lstm,
    aten.gru_cell.default: _gru,
    aten.rnn_tanh_cell.default: _rnn(torch.tanh),
    aten.rnn_relu_cell.default: _rnn(torch.relu),
}
