"""Nodes in the kernels of templates: their results have the memory layout that others read."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import aoti


class Gated(nn.Module):
    """A sum of convolutions, one with a gate, that others read in two memory layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.short, self.pooled, self.all = (nn.Conv2d(32, 32, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = nn.functional.silu(x) * 0.5
        y = self.wide(nn.functional.silu(self.narrow(x)))
        y = y * y.mean((2, 3), keepdim=True).sigmoid() + self.short(x)
        y = nn.functional.silu(y) * 0.9
        return self.pooled(nn.functional.avg_pool2d(y, 2)), self.all(y)


def test_a_result_in_another_layout_is_not_written_in_that_of_the_template(tmp_path):
    torch.manual_seed(0)
    module, x = Gated().eval(), torch.randn(2, 32, 24, 24)
    shapes = {"x": {0: "batch=1..8"}}
    aoti.export(module, (x,), path=tmp_path / "m.pt2", dynamic_shapes=shapes)
    with torch.no_grad(), aoti.load(tmp_path / "m.pt2") as model:
        for found, expected in zip(model(x.numpy()), module(x), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
