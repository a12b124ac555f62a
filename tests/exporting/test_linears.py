"""Linear layers with weights in blocks: the same values, for any number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from aoti.exporting.passes.linears import block_linears
from aoti.exporting.passes.registry import rewrite


def operators(program) -> set[str]:
    """The names of the operators that a program calls."""
    return {str(node.target) for node in program.graph_module.graph.nodes}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(256,), (3, 256), (2, 3, 256), (40, 256), (0, 256)])
@pytest.mark.parametrize("outputs", [7, 256, 258, 1536, 1109])
def test_a_rewritten_layer_computes_the_same(bias, shape, outputs):
    module = nn.Sequential(nn.Linear(256, outputs, bias=bias), nn.ReLU(), nn.Linear(outputs, 2))
    x = torch.randn(shape)
    dynamic = ({0: Dim("rows", min=1, max=64)},) if len(shape) > 1 and shape[0] else None
    program = torch.export.export(module.eval(), (x,), dynamic_shapes=dynamic)
    rewritten, report = block_linears(program)
    assert report == ["2 with weights in blocks"]
    assert "aten.linear.default" not in operators(rewritten)
    assert "aten.linear.default" in operators(program)
    assert "aoti.blocked_product.default" in operators(rewritten)
    assert "aten.mm.default" not in operators(rewritten)
    for example in [x, torch.randn(11, *shape[1:])] if dynamic else [x]:
        with torch.no_grad():
            torch.testing.assert_close(rewritten.module()(example), module(example))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_have_no_kernel_of_our_own(dtype):
    module, x = nn.Linear(256, 384).to(dtype), torch.randn(8, 256, dtype=dtype)
    rewritten, report = block_linears(torch.export.export(module, (x,)))
    assert len(report) == 1
    assert "aoti.blocked_product.default" not in operators(rewritten)
    with torch.no_grad():
        torch.testing.assert_close(rewritten.module()(x), module(x))


class Products(nn.Module):
    """Products with weights of the module, as (inputs, outputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(40, 96))
        self.second = nn.Parameter(torch.randn(96, 67))
        self.bias = nn.Parameter(torch.randn(67))

    def forward(self, x):
        product = x @ self.first
        rows = product.view(-1, 96)
        return torch.addmm(self.bias, rows, self.second), rows.mm(self.second)


def test_products_with_weights_are_linear_layers():
    module, x = Products().eval(), torch.randn(2, 5, 40)
    rewritten, report = block_linears(torch.export.export(module, (x,)))
    assert report == ["3 with weights in blocks"]
    assert "aoti.blocked_product.default" in operators(rewritten)
    with torch.no_grad():
        torch.testing.assert_close(rewritten.module()(x), module(x))


@pytest.mark.parametrize(("beta", "alpha"), [(1, 2), (0.5, 1)])
def test_a_scaled_product_is_left_alone(beta, alpha):
    class Scaled(Products):
        def forward(self, x):
            return torch.addmm(self.bias, x, self.second, beta=beta, alpha=alpha)

    program = torch.export.export(Scaled(), (torch.randn(3, 96),))
    assert block_linears(program)[1] == []


class Shared(nn.Module):
    """Two layers of one input, for which there is no kernel of our own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 134), nn.Linear(64, 134, bias=False)
        self.to(torch.float16)

    def forward(self, x):
        return self.first(x) * self.second(x)


def test_layers_without_blocks_that_share_an_input_can_be_joined():
    module, x = Shared().eval(), torch.randn(8, 64, dtype=torch.float16)
    program = torch.export.export(module, (x,))
    rewritten, _ = rewrite(program, ["linears"], frozen=True)
    assert "aten.addmm.default" in operators(rewritten)
    with torch.no_grad():
        torch.testing.assert_close(rewritten.module()(x), module(x))


def test_a_weight_that_is_computed_is_left_alone():
    class Computed(nn.Module):
        def forward(self, x, w):
            return nn.functional.linear(x, w * 2)

    program = torch.export.export(Computed(), (torch.randn(2, 256), torch.randn(256, 256)))
    assert block_linears(program)[1] == []


def test_a_weight_that_a_call_is_given_is_left_alone():
    class Given(nn.Module):
        def forward(self, x, w):
            return nn.functional.linear(x, w)

    program = torch.export.export(Given(), (torch.randn(2, 256), torch.randn(256, 256)))
    assert block_linears(program)[1] == []


def test_weights_that_every_call_would_compute_are_left_alone():
    norm = nn.Sequential(nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5))
    for module, example, name in (
        (nn.Linear(256, 300), torch.randn(8, 256), "linears"),
        (norm, torch.randn(2, 4, 9), "batch-norms"),
    ):
        program = torch.export.export(module.eval(), (example,))
        rewritten, report = rewrite(program, [name], frozen=False)
        assert rewritten is program
        told = f"{name}: not rewritten: without freezing, every call would compute the new weights"
        assert report == [told]


class Bytes(nn.Module):
    """A layer of quantised inputs and weights, as torchao computes it on some CPUs and others."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        weight = torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", torch.rand(outputs))

    def forward(self, x):
        rows = (x * 100).round().clamp(-128, 127).to(torch.int8)
        if self.dtype == torch.uint8:
            product = torch._int_mm((rows.to(torch.int32) + 128).to(torch.uint8), self.weight.t())
            product = product - 128 * self.weight.sum(1, dtype=torch.int32)
        else:
            product = torch._int_mm(rows, self.weight.t())
        return product * self.scale


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 128), (30, 7), (37, 100)])
def test_products_of_bytes_stay_exact(dtype, inputs, outputs):
    module, x = Bytes(inputs, outputs, dtype), torch.randn(20, inputs)
    rows = Dim("rows", min=1, max=64)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: rows},))
    rewritten, report = block_linears(program)
    assert report == ["1 with weights in blocks"]
    assert "aoti.narrow_product.default" in operators(rewritten)
    assert "aten._int_mm.default" not in operators(rewritten)
    for example in (x, torch.randn(31, inputs)):
        assert torch.equal(rewritten.module()(example), module(example))


class WeightsOfBytes(nn.Module):
    """Floats times bytes, as torchao computes a layer of which only the weights are quantised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        weight = torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", torch.rand(outputs))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        product = torch.mm(rows, self.weight.t().to(x.dtype)) * self.scale.to(x.dtype)
        return product.reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 128), (37, 100)])
def test_weights_of_bytes_are_stored_as_such(dtype, inputs, outputs):
    module, x = WeightsOfBytes(inputs, outputs), torch.randn(3, 5, inputs, dtype=dtype)
    rewritten, report = block_linears(torch.export.export(module, (x,)))
    assert report == ["1 with weights in blocks"]
    assert "aoti.narrow_product.default" in operators(rewritten)
    torch.testing.assert_close(rewritten.module()(x), module(x))
