"""The packages that the tests of kinds and dtypes run.

usage: python tests/interop_packages.py DIRECTORY
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

import aoti

export = partial(aoti.export, in_process=True)


class Same(nn.Module):
    """Passes on the dtypes that numpy lacks."""

    names = ("bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz complex32").split()

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return dict(inputs)


class More(nn.Module):
    """The input, and one more, for any two sizes, zero among them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x + 1


class Scalar(nn.Module):
    """Without dimensions."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x * 2


class Out(nn.Module):
    """Has an argument that is named as an option of aoti is."""

    def forward(self, x: Tensor, *, out: Tensor) -> Tensor:
        return x + out


def main(directory: Path) -> None:
    """Export them all."""
    values = {name: torch.ones(2, 3).to(getattr(torch, name)) for name in Same.names}
    export(Same(), (), values, path=directory / "same.pt2")
    sizes = {"x": {0: Dim("n", min=0, max=1 << 20), 1: Dim("m", min=0, max=1 << 20)}}
    for name, dtype in (("more", torch.float32), ("more_bfloat16", torch.bfloat16)):
        x = torch.ones(3, 4, dtype=dtype)
        export(More(), (x,), path=directory / f"{name}.pt2", dynamic_shapes=sizes)
    export(Scalar(), (torch.tensor(1.0),), path=directory / "scalar.pt2")
    export(Out(), (x.float(),), {"out": x.float()}, path=directory / "out.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
