"""Scans over dynamic sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

import aoti
from aoti.exporting.passes.scans import scans_with_sizes


class Sums(nn.Module):
    """Two results whose sizes are those of an argument, and products of them."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        def step(total: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            total = total / 2 + row
            return total, torch.outer(total, y).flatten()

        return scan(step, torch.zeros(x.shape[1]), x)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("scans") / "sums.pt2"
    shapes = {"x": {0: "steps=1..20", 1: "n=1..30"}, "y": {0: "m=1..30"}}
    return aoti.export(
        Sums(), (torch.ones(3, 4), torch.ones(5)), path=path, dynamic_shapes=shapes
    ).path


@pytest.mark.parametrize("engine", ["native", "libtorch"])
def test_a_scan_over_dynamic_sizes_is_that_of_eager(package, engine):
    with aoti.load(package, engine=engine) as model:
        for steps, n, m in ((3, 4, 5), (1, 1, 1), (20, 30, 7)):
            x, y = torch.randn(steps, n), torch.randn(m)
            torch.testing.assert_close(model(x, y), Sums()(x, y))


def test_a_program_whose_scans_have_their_sizes_stays_as_it_is():
    program = torch.export.export(Sums(), (torch.ones(3, 4), torch.ones(5)))
    assert scans_with_sizes(program) is program
