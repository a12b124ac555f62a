"""Packages that keep their weights outside of their code.

usage: python export_weights.py DIRECTORY

Two linear layers, so that the weights are what the answer depends on: once in a file of their own,
once behind the shared object's own end, from where the model maps them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import aoti


def main(directory: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.Linear(16, 1)).eval()
    rows = torch.randn(3, 10)
    outside = {"aot_inductor.package_constants_in_so": False}
    blob = {**outside, "aot_inductor.package_constants_on_disk_format": "binary_blob"}
    aoti.export(module, (rows,), path=directory / "blob.pt2", options=blob)
    mapped = {"aot_inductor.force_mmap_weights": True}
    aoti.export(module, (rows,), path=directory / "mapped.pt2", options=mapped)
    torch.save(module.state_dict(), directory / "weights.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
