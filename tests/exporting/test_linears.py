"""Linear layers with transposed weights: the same values, for any number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from aoti.exporting.passes.linears import transpose_linears
from aoti.exporting.passes.registry import rewrite


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(256,), (3, 256), (2, 3, 256), (40, 256), (0, 256)])
@pytest.mark.parametrize("outputs", [256, 1536, 1100])
def test_a_transposed_layer_computes_the_same(bias, shape, outputs):
    module = nn.Sequential(nn.Linear(256, outputs, bias=bias), nn.ReLU(), nn.Linear(outputs, 2))
    x = torch.randn(shape)
    dynamic = ({0: Dim("rows", min=1, max=64)},) if len(shape) > 1 and shape[0] else None
    program = torch.export.export(module.eval(), (x,), dynamic_shapes=dynamic)
    transposed, report = transpose_linears(program)
    few = "" if shape[0] in {0, 40} else ", laid out for at most 32 rows per call"
    assert report == [f"2 with transposed weights{few}"]
    assert "linear.default" not in str(transposed.graph_module.graph)
    assert "linear.default" in str(program.graph_module.graph)
    assert ("product" in str(transposed.graph_module.graph)) == bool(outputs != 1100 and few)
    for example in [x, torch.randn(11, *shape[1:])] if dynamic else [x]:
        with torch.no_grad():
            torch.testing.assert_close(transposed.module()(example), module(example))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_have_no_kernel_of_our_own(dtype):
    module, x = nn.Linear(256, 384).to(dtype), torch.randn(8, 256, dtype=dtype)
    transposed, report = transpose_linears(torch.export.export(module, (x,)))
    assert len(report) == 1
    assert "product" not in str(transposed.graph_module.graph)
    with torch.no_grad():
        torch.testing.assert_close(transposed.module()(x), module(x))


class Shared(nn.Module):
    """Two layers of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(256, 384), nn.Linear(256, 384, bias=False)

    def forward(self, x):
        return self.first(x) * self.second(x)


@pytest.mark.parametrize("rows", [8, 40])
def test_layers_that_share_an_input_are_joined_for_many_rows(rows):
    module, x = Shared().eval(), torch.randn(rows, 256)
    program = torch.export.export(module, (x,))
    transposed, _, _ = rewrite(program, ["linears"], {"freezing": True})
    assert ("addmm" in str(transposed.graph_module.graph)) == (rows > 32)
    with torch.no_grad():
        torch.testing.assert_close(transposed.module()(x), module(x))


def test_a_weight_that_is_computed_is_left_alone():
    class Computed(nn.Module):
        def forward(self, x, w):
            return nn.functional.linear(x, w * 2)

    program = torch.export.export(Computed(), (torch.randn(2, 256), torch.randn(256, 256)))
    assert transpose_linears(program)[1] == []


def test_a_weight_that_a_call_is_given_is_left_alone():
    class Given(nn.Module):
        def forward(self, x, w):
            return nn.functional.linear(x, w)

    program = torch.export.export(Given(), (torch.randn(2, 256), torch.randn(256, 256)))
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


def test_weights_that_every_call_would_compute_are_left_alone():
    norm = nn.Sequential(nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5))
    for module, example, name in (
        (nn.Linear(256, 300), torch.randn(8, 256), "linears"),
        (norm, torch.randn(2, 4, 9), "batch-norms"),
    ):
        program = torch.export.export(module.eval(), (example,))
        rewritten, report, options = rewrite(program, [name], {"freezing": False})
        assert rewritten is program
        told = f"{name}: not rewritten: without freezing, every call would compute the new weights"
        assert (report, options) == ([told], {})
