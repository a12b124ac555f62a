"""Packages for tests of joined calls: one that is much cheaper joined, and one that must not be.

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


def main(directory: Path) -> None:
    torch.manual_seed(0)
    rows = {0: Dim("batch", min=1, max=256)}
    layers = [nn.Linear(4, 1024), *(nn.Linear(1024, 1024) for _ in range(4)), nn.Linear(1024, 2)]
    wide = nn.Sequential(*layers).eval()
    example = (torch.randn(8, 4),)
    export(wide, example, path=directory / "wide.pt2", dynamic_shapes={"input": rows})
    export(Mixing(), example, path=directory / "mixing.pt2", dynamic_shapes={"x": rows})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
