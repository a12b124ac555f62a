"""Sizes that other sizes are computed from."""

from __future__ import annotations

import torch
from torch import nn

import aoti


class Frames(nn.Module):
    """A convolution with steps, and a norm whose operands are broadcast along its results."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(1, 4, 10, 5), nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(x[:, None]).transpose(1, 2)).relu()


def test_a_size_is_computed_from_one_that_no_input_has(tmp_path):
    module, path = Frames().eval(), tmp_path / "m.pt2"
    shapes = {"x": {0: "batch=1..8", 1: "20*frames"}}
    aoti.export(module, (torch.randn(2, 80),), path=path, dynamic_shapes=shapes)
    with torch.no_grad(), aoti.load(path) as model:
        for batch, frames in ((2, 4), (1, 9), (3, 50)):
            x = torch.randn(batch, 20 * frames)
            torch.testing.assert_close(model(x), module(x), rtol=1e-4, atol=1e-5)
