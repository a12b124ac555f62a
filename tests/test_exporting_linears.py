"""Linear layers with transposed weights: the same values, for any number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from aoti.exporting.linears import transpose_linears


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(256,), (3, 256), (2, 3, 256)])
def test_a_transposed_layer_computes_the_same(bias, shape):
    module = nn.Sequential(nn.Linear(256, 256, bias=bias), nn.ReLU(), nn.Linear(256, 2)).eval()
    x = torch.randn(shape)
    dynamic = ({0: Dim("rows", min=1, max=64)},) if len(shape) > 1 else None
    program = torch.export.export(module, (x,), dynamic_shapes=dynamic)
    transposed, report = transpose_linears(program)
    assert report == ["2 with transposed weights"]
    assert "linear.default" not in str(transposed.graph_module.graph)
    assert "linear.default" in str(program.graph_module.graph)
    for example in [x, torch.randn(11, *shape[1:])] if dynamic else [x]:
        with torch.no_grad():
            torch.testing.assert_close(transposed.module()(example), module(example))


def test_a_weight_that_is_computed_is_left_alone():
    class Computed(nn.Module):
        def forward(self, x, w):
            return nn.functional.linear(x, w * 2)

    program = torch.export.export(Computed(), (torch.randn(2, 256), torch.randn(256, 256)))
    assert transpose_linears(program)[1] == []


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(256, 128),
        nn.Sequential(nn.Conv1d(1, 1, 3), nn.Linear(254, 512)),
    ],
    ids=["small", "beside a convolution"],
)
def test_what_is_faster_as_it_is_is_left_alone(module):
    program = torch.export.export(module.eval(), (torch.randn(2, 1, 256),))
    assert transpose_linears(program) == (program, [])
