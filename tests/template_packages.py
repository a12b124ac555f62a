"""Packages of convolutions and linear layers of every kind, rewritten, and what eager computes.

usage: python tests/template_packages.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._inductor import aoti_compile_and_package
from torch.export import Dim
from torch.nn import functional

import aoti.exporting.passes.depthwise_template
import aoti.exporting.passes.kernel_templates
import aoti.exporting.passes.winograd_template  # noqa: F401 (all register with Inductor)
from aoti.exporting.build.presets import PRESETS
from aoti.exporting.passes.convolutions import rewrite_convolutions
from aoti.exporting.passes.linears import block_linears
from aoti.exporting.passes.size_ranges import mended

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
    "far apart": nn.Conv2d(4, 8, 3, padding=4, dilation=4),
    "far apart in steps": nn.Conv2d(4, 8, 3, stride=2, padding=4, dilation=3),
    "in groups": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "pixels in groups": nn.Conv2d(4, 6, 1, groups=2),
    "in blocks": nn.Conv2d(4, 100, 3),
}
LINES = {
    "line": nn.Conv1d(4, 6, 4, stride=2, padding=3, dilation=2),
    "long line": nn.Conv1d(4, 6, 3, padding=1),
    "dots": nn.Conv1d(4, 6, 1),
    "few dots": nn.Conv1d(4, 6, 1, stride=2),
    "far line in groups": nn.Conv1d(4, 8, 5, groups=2, dilation=3),
}

DEPTHWISE = {
    "oblong and apart": nn.Conv2d(72, 72, (2, 3), (1, 2), (3, 1), (2, 3), groups=72),
    "far beside the image": nn.Conv2d(72, 72, 1, stride=(3, 2), padding=9, groups=72),
    "without bias": nn.Conv2d(72, 72, 5, padding=2, groups=72, bias=False),
}


class Several(nn.Module):
    """Layers of every kind, and elementwise operators behind some."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.ModuleList(IMAGES.values())
        self.lines = nn.ModuleList(LINES.values())
        self.heads = nn.Conv2d(4, 6, (20, 12))
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.three = nn.Conv2d(3, 20, (3, 5), stride=(2, 1), padding=(1, 2))
        self.wide, self.depthwise = nn.Conv2d(4, 72, 1), nn.ModuleList(DEPTHWISE.values())

    def forward(self, image, line):
        found = {name: layer(image) for name, layer in zip(IMAGES, self.images, strict=True)}
        found |= {name: layer(line) for name, layer in zip(LINES, self.lines, strict=True)}
        wide = self.wide(image)
        found |= {name: layer(wide) for name, layer in zip(DEPTHWISE, self.depthwise, strict=True)}
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
        # Images whose channels are not one after another, or whose first one is elsewhere.
        found["but the first"] = self.second(torch.cat([image, image])[1:])
        found["some channels"] = self.three(image[:, 1:])
        found["given transposed"] = self.three(image[:, 1:].transpose(2, 3))
        return found


class AnySize(nn.Module):
    """Convolutions of images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 72, 3, padding=1)
        self.second = nn.Conv2d(72, 100, 3, stride=2, dilation=2)
        self.third = nn.Conv2d(72, 72, 3, padding=1, groups=72)
        self.fourth = nn.Conv2d(72, 72, 5, stride=2, padding=2, groups=72)
        self.line = nn.Conv1d(72, 72, 4, 3, groups=72)

    def forward(self, image):
        first = self.first(image).relu()
        found = {"first": first, "second": self.second(first).sigmoid()}
        found |= {
            "third": (self.third(first).relu() + first).sigmoid(),
            "fourth": self.fourth(first),
        }
        return {**found, "line": self.line(first.flatten(2)).tanh()}


class ManyChannels(nn.Module):
    """Convolutions that Winograd's algorithm computes, of images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 32, 1), nn.Conv2d(32, 48, 3, padding=1)
        self.third = nn.Conv2d(48, 160, 3, bias=False)
        self.fourth, self.fifth = (nn.Conv2d(48, 48, 3, padding=n) for n in ("same", (0, 3)))

    def forward(self, image):
        wide = self.second(self.first(image))
        found = {"wide": wide, "third": self.third(wide), "fifth": self.fifth(wide)}
        fourth = self.fourth(wide.relu())  # is wanted as it is, too
        found |= {"fourth": fourth, "residual": (fourth * 2 + wide).relu()}
        return {**found, "pooled": self.third(wide).sigmoid().mean((2, 3))}


class Linears(nn.Module):
    """Layers whose weights are divided into blocks of every width, and operators behind some."""

    def __init__(self) -> None:
        super().__init__()
        self.by_48, self.by_64, self.by_32 = (nn.Linear(64, n) for n in (1536, 64, 160))
        self.same, self.plain = nn.Linear(64, 64), nn.Linear(1536, 96, bias=False)
        self.heads = nn.ModuleList(nn.Linear(64, 96) for _ in range(3))
        self.undivided = nn.Linear(64, 10)

    def forward(self, x):
        inner = functional.gelu(self.by_48(x))
        found = {"inner": inner, "plain": self.plain(inner), "undivided": self.undivided(x)}
        found["residual"] = (self.by_64(x) * 2 + x).relu()
        found["normed"] = functional.layer_norm(self.same(x) + x, [64])
        found["rows"] = self.by_32(x).reshape(-1, 160).sigmoid()
        q, k, v = (head(x).unflatten(2, (3, 32)).transpose(1, 2) for head in self.heads)
        found["attention"] = functional.scaled_dot_product_attention(q, k, v)
        first = self.by_64(x).square()  # is wanted as it is, too
        return {**found, "square": first, "sums": first.sum(1)}


class Narrow(nn.Module):
    """Layers with weights of 8 and 16 bits, and operators behind some."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(70, 160), nn.Linear(160, 21, bias=False)
        self.to(torch.bfloat16)
        for name, outputs, inputs in (("many", 150, 70), ("few", 21, 150), ("deep", 48, 600)):
            weight = torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8)
            self.register_buffer(name, weight)

    def forward(self, x):
        rows = x.reshape(-1, 70)
        unsigned = (rows.abs() * 100).clamp(0, 255).to(torch.uint8)
        signed = (rows * 100).clamp(-128, 127).to(torch.int8)
        product = torch._int_mm(unsigned, self.many.t())
        found = {"unsigned": product, "signed": torch._int_mm(signed, self.many.t()) * 0.01}
        scaled = (product * 1e-4).relu()
        found["by bytes"] = (torch.mm(scaled, self.few.t().to(torch.float32)) * 0.01).tanh()
        deep = scaled.repeat(1, 4).sigmoid()
        found["deep"] = torch.mm(deep, self.deep.t().to(torch.float32)) * 1e-3
        deepest = torch._int_mm(unsigned[:, :60].repeat(1, 10), self.deep.t())
        found["deepest"] = deepest + 1
        half = self.first(x.to(torch.bfloat16)).relu()
        return {**found, "half": half, "last": self.last(half)}


def convolutions() -> tuple[torch.export.ExportedProgram, list[Any]]:
    """A program, rewritten, and examples with what eager computes."""
    module, batch = Several().eval(), Dim("batch", min=2, max=8)
    examples = [(torch.randn(n, 4, 20, 12), torch.randn(n, 4, 601)) for n in (3, 2, 7)]
    program = torch.export.export(module, examples[0], dynamic_shapes=({0: batch}, {0: batch}))
    return rewrite_convolutions(program)[0], [(*given, module(*given)) for given in examples]


def images() -> tuple[torch.export.ExportedProgram, list[Any]]:
    """The same."""
    module = AnySize().eval()
    free = dict.fromkeys((0, 2, 3), Dim.AUTO)
    examples = [
        torch.randn(n, 4, *size) for n, size in ((2, (9, 11)), (4, (33, 70)), (3, (8, 400)))
    ]
    program = torch.export.export(module, (examples[0],), dynamic_shapes=(free,))
    return rewrite_convolutions(program)[0], [(given, module(given)) for given in examples]


def many_channels() -> tuple[torch.export.ExportedProgram, list[Any]]:
    """The same."""
    module = ManyChannels().eval()
    free = dict.fromkeys((0, 2, 3), Dim.AUTO)
    examples = [
        torch.randn(n, 4, *size) for n, size in ((2, (9, 11)), (4, (33, 70)), (3, (3, 601)))
    ]
    program = torch.export.export(module, (examples[0],), dynamic_shapes=(free,))
    return rewrite_convolutions(program)[0], [(given, module(given)) for given in examples]


def linears() -> tuple[torch.export.ExportedProgram, list[Any]]:
    """The same."""
    module = Linears().eval()
    sizes = {0: Dim("batch", min=2, max=8), 1: Dim("sequence", min=2, max=64)}
    examples = [torch.randn(*size, 64) for size in ((3, 5), (2, 2), (2, 8), (7, 43))]
    program = torch.export.export(module, (examples[0],), dynamic_shapes=(sizes,))
    return block_linears(program)[0], [(given, module(given)) for given in examples]


def narrow() -> tuple[torch.export.ExportedProgram, list[Any]]:
    """The same."""
    module = Narrow().eval()
    sizes = {0: Dim("batch", min=2, max=8), 1: Dim("sequence", min=2, max=64)}
    examples = [torch.randn(*size, 70) for size in ((3, 6), (2, 2), (2, 9), (7, 43))]
    program = torch.export.export(module, (examples[0],), dynamic_shapes=(sizes,))
    return block_linears(program)[0], [(given, module(given)) for given in examples]


def main(directory: Path) -> None:
    torch.manual_seed(0)
    with torch.no_grad(), mended():
        for make in (convolutions, images, many_channels, linears, narrow):
            program, examples = make()
            torch.save(examples, directory / f"{make.__name__}.pth")
            for threads in (1, 16):
                path = str(directory / f"{make.__name__}-{threads}.pt2")
                counts = {"cpp.threads": threads, "cpp.dynamic_threads": threads > 1}
                chosen = {**PRESETS["portable"].options, **counts}
                aoti_compile_and_package(program, package_path=path, inductor_configs=chosen)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
