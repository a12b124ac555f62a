"""Products with the weights of experts: the operator of transformers becomes one of ours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import aoti
from aoti.exporting.passes.experts import grouped_product


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    library = torch.library.Library("transformers", "FRAGMENT")
    if not hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        library.define("grouped_mm_fallback(Tensor input, Tensor weight, Tensor offs) -> Tensor")
        torch.library.register_fake(
            "transformers::grouped_mm_fallback",
            lambda x, weight, _: x.new_empty(x.shape[0], weight.shape[2]),
            lib=library,
        )
    path = tmp_path_factory.mktemp("experts") / "experts.pt2"
    free = {"x": {0: "rows=0..200"}, "ends": None}
    example = torch.ones(5, 20), torch.tensor([1, 2, 5], dtype=torch.int32)
    return aoti.export(Experts(), example, path=path, dynamic_shapes=free).path


class Experts(nn.Module):
    """Two products, one of which an elementwise operator follows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Parameter(torch.randn(3, 96, 20))
        self.down = nn.Parameter(torch.randn(3, 96, 7))

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        product = torch.ops.transformers.grouped_mm_fallback.default
        hidden = nn.functional.silu(product(x, self.up.transpose(1, 2), ends) + 1)
        return product(hidden, self.down, ends)


def eager(x, ends):
    module, found = Experts(), []
    start = 0
    with torch.no_grad():
        for up, down, end in zip(module.up, module.down, ends.tolist(), strict=True):
            found.append(nn.functional.silu(x[start:end] @ up.t() + 1) @ down)
            start = end
    return torch.cat([*found, torch.zeros(len(x) - start, 7)])


@pytest.mark.parametrize("engine", ["native", "libtorch"])
def test_rows_meet_the_weights_of_their_group(package, engine):
    with aoti.load(package, engine=engine) as model:
        for rows, ends in ((5, (1, 2, 5)), (200, (0, 150, 150)), (3, (0, 0, 3)), (0, (0, 0, 0))):
            x, given = torch.randn(rows, 20), torch.tensor(ends, dtype=torch.int32)
            torch.testing.assert_close(model(x, given), eager(x, given), rtol=1e-4, atol=1e-4)


def test_ends_beyond_the_rows_read_nothing_there(package):
    with aoti.load(package) as model:
        x = torch.randn(4, 20)
        found = model(x, torch.tensor([-5, 90, 2], dtype=torch.int32))
        expected = eager(x, torch.tensor([0, 4, 4], dtype=torch.int32))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_operator_computes_what_its_kernel_does():
    x, weight = torch.randn(4, 3), torch.randn(2, 1, 3, 5)
    found = grouped_product(x, weight, torch.tensor([1, 3]))
    expected = torch.cat([x[:1] @ weight[0, 0], x[1:3] @ weight[1, 0], torch.zeros(1, 5)])
    torch.testing.assert_close(found, expected)
