"""Recurrent cells with weights in blocks: the same values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aoti.exporting.passes.cells import open_cells

CELLS = {
    "lstm": nn.LSTMCell(8, 16),
    "gru": nn.GRUCell(8, 16),
    "tanh": nn.RNNCell(8, 16),
    "relu": nn.RNNCell(8, 16, nonlinearity="relu"),
    "without biases": nn.LSTMCell(8, 16, bias=False),
    "of odd sizes": nn.GRUCell(5, 7),
    "in double precision": nn.LSTMCell(8, 16).double(),
}


def example(cell):
    dtype = cell.weight_ih.dtype
    hidden = torch.randn(3, cell.hidden_size, dtype=dtype)
    states = (hidden, torch.randn_like(hidden)) if isinstance(cell, nn.LSTMCell) else hidden
    return torch.randn(3, cell.input_size, dtype=dtype), states


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_an_open_cell_computes_the_same(cell):
    given = example(cell)
    program = torch.export.export(cell.eval(), given)
    opened, report = open_cells(program)
    assert report == ["1 with weights in blocks"]
    assert not [node for node in opened.graph.nodes if "_cell" in str(node.target)]
    with torch.no_grad():
        torch.testing.assert_close(opened.module()(*given), cell(*given))


class Steps(nn.Module):
    """A cell that is used twice, whose second state only is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(8, 8)

    def forward(self, x, hidden, state):
        hidden, state = self.cell(x, (hidden, state))
        return self.cell(hidden, (hidden, state))[1]


def test_cells_behind_each_other():
    module, given = Steps().eval(), tuple(torch.randn(2, 8) for _ in range(3))
    opened, report = open_cells(torch.export.export(module, given))
    assert report == ["2 with weights in blocks"]
    with torch.no_grad():
        torch.testing.assert_close(opened.module()(*given), module(*given))


def test_a_cell_with_weights_from_a_call_is_left_alone():
    class Given(nn.Module):
        def forward(self, x, hidden, weight):
            return torch.gru_cell(x, hidden, weight, weight)

    given = torch.randn(2, 4), torch.randn(2, 4), torch.randn(12, 4)
    program = torch.export.export(Given(), given)
    assert open_cells(program) == (program, [])
