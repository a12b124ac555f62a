"""Packages for tests of joined calls: rows at several places, and models that must not be joined.

usage: python tests/batch_packages.py DIRECTORY
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

import aoti

# All in one process, which saves the start of one for each.
export = partial(aoti.export, in_process=True)


class Mixing(nn.Module):
    """Takes any number of rows, and lets each know of the others."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


class Tagged(nn.Module):
    """Rows of several inputs, one input without rows, and numbers in a dict."""

    def forward(self, x: Tensor, ids: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"scaled": x * scale + ids[:, None], "sums": x.sum(1)}


class TimeFirst(nn.Module):
    """Rows in the second dimension, as recurrent layers have them, and doubled in another input."""

    def forward(self, x: Tensor, h: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x + h, x.sum(0), pairs * 2


class Halves(nn.Module):
    """Small floats in a dict, and a number that is part of the code."""

    def forward(self, pair: dict[str, Tensor], times: int) -> dict[str, Tensor]:
        return {name: value * times for name, value in pair.items()}


class Layouts(nn.Module):
    """A row that all share in memory, rows that lie in other rows, and the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.arange(3.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.shared.expand(x.shape[0], 3), (x + 1).t().contiguous().t(), x


class Weighted(nn.Module):
    """Shows which weights it ran with."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), weight))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def main(directory: Path) -> None:
    torch.manual_seed(0)
    rows = {0: Dim("batch", min=1, max=256)}
    layers = [nn.Linear(4, 1024), *(nn.Linear(1024, 1024) for _ in range(4)), nn.Linear(1024, 2)]
    wide = nn.Sequential(*layers).eval()
    example = (torch.randn(8, 4),)
    export(wide, example, path=directory / "wide.pt2", dynamic_shapes={"input": rows})
    export(Mixing(), example, path=directory / "mixing.pt2", dynamic_shapes={"x": rows})
    batch, time = Dim("batch", min=1, max=64), Dim("time", min=1, max=16)
    x, n = torch.randn(8, 3), torch.arange(8)
    shapes = {"x": {0: batch}, "ids": {0: batch}, "scale": None}
    tagged = (x, n, torch.ones(3))
    export(Tagged(), tagged, path=directory / "tagged.pt2", dynamic_shapes=shapes)
    shapes = {"x": {0: time, 1: batch}, "h": {1: batch}, "pairs": {0: 2 * batch}}
    first = (torch.randn(4, 8, 3), torch.randn(1, 8, 3), torch.randn(16, 3))
    export(TimeFirst(), first, path=directory / "time_first.pt2", dynamic_shapes=shapes)
    pair = {"half": x.half(), "brain": x.bfloat16()}
    shapes = {"pair": {"half": {0: batch}, "brain": {0: batch}}, "times": None}
    export(Halves(), (pair, 3), path=directory / "halves.pt2", dynamic_shapes=shapes)
    lookup = nn.Sequential(nn.Embedding(10, 4)).eval()
    export(lookup, (n,), path=directory / "lookup.pt2", dynamic_shapes={"input": {0: batch}})
    export(Layouts(), (x,), path=directory / "layouts.pt2", dynamic_shapes={"x": {0: batch}})
    for name, weight in (("weighted", 1.0), ("other", 10.0)):
        path, shapes = directory / f"{name}.pt2", {"x": {0: batch}}
        export(Weighted(weight), (x,), path=path, dynamic_shapes=shapes, preset="updatable")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
