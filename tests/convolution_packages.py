"""A package of convolutions of every kind, all of them rewritten, and what eager computes.

usage: python tests/convolution_packages.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch._inductor import aoti_compile_and_package
from torch.export import Dim

import aoti.exporting.templates  # noqa: F401 (tells Inductor of them)
from aoti.exporting.convolutions import rewrite_convolutions
from aoti.exporting.presets import PRESETS

IMAGES = {
    "plain": nn.Conv2d(4, 8, 3),
    "padded": nn.Conv2d(4, 8, 3, padding=1, bias=False),
    "oblong": nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3)),
    "same": nn.Conv2d(4, 5, (2, 4), padding="same", dilation=2),
    "strides beyond the kernel": nn.Conv2d(4, 3, 2, stride=3, padding=1),
    "pixels": nn.Conv2d(4, 6, 1),
    "few pixels": nn.Conv2d(4, 6, 1, stride=2),
    "padded pixels": nn.Conv2d(4, 6, 1, padding=1),
    "whole image": nn.Conv2d(4, 6, (20, 12)),
}
LINES = {
    "line": nn.Conv1d(4, 6, 4, stride=2, padding=3, dilation=2),
    "long line": nn.Conv1d(4, 6, 3, padding=1),
    "dots": nn.Conv1d(4, 6, 1),
    "few dots": nn.Conv1d(4, 6, 1, stride=2),
}


class Several(nn.Module):
    """Layers of every kind, and elementwise operators behind some."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.ModuleList(IMAGES.values())
        self.lines = nn.ModuleList(LINES.values())
        self.heads = nn.Conv2d(4, 6, (20, 12))
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, image, line):
        found = {name: layer(image) for name, layer in zip(IMAGES, self.images, strict=True)}
        found |= {name: layer(line) for name, layer in zip(LINES, self.lines, strict=True)}
        first = self.first(image)  # is wanted as it is, too
        found["wanted twice"] = first
        found["residual"] = (self.second(first.relu()) * 2 + image).relu()
        found["scaled line"] = (found["long line"] * 2).tanh()
        heads = self.heads(image)
        found |= {"one head": heads.sigmoid(), "other head": heads.flatten(1).tanh()}
        second = self.second(image).relu()
        found |= {"image": second, "pixels as rows": second.permute(0, 2, 3, 1).reshape(-1, 4) * 2}
        found["pooled"] = found["padded"].sigmoid().mean((2, 3))
        found["transposed"] = self.second(image).transpose(2, 3) + 1
        return found


def main(directory: Path) -> None:
    torch.manual_seed(0)
    module, batch = Several().eval(), Dim("batch", min=2, max=8)
    examples = [(torch.randn(n, 4, 20, 12), torch.randn(n, 4, 601)) for n in (3, 2, 7)]
    program = torch.export.export(module, examples[0], dynamic_shapes=({0: batch}, {0: batch}))
    rewritten, _ = rewrite_convolutions(program)
    for threads in (1, 16):
        counts = {"cpp.threads": threads, "cpp.dynamic_threads": threads > 1}
        options = {**PRESETS["portable"].options, **counts}
        path = str(directory / f"convolutions-{threads}.pt2")
        with torch.no_grad():
            aoti_compile_and_package(rewritten, package_path=path, inductor_configs=options)
    with torch.no_grad():
        torch.save([(*given, module(*given)) for given in examples], directory / "expected.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
