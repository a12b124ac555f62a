"""Modules that compute random expressions, exported to packages: many modules in one package.

usage: python tests/random_modules.py DIRECTORY

The expressions are the same in every run. Each one is compiled with every dtype that it is for.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

import aoti

INTEGERS = ["int8", "uint8", "int16"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
DTYPES = [*INTEGERS, "bool", *FLOATS]
MODULES = int(os.environ.get("AOTI_RANDOM_MODULES", "40"))  # for each dtype
SMALLEST, LARGEST = 4, 70  # of both sizes of `x`
PARTS = (2, 3, 4)  # of what `z` is divided into: its size is a multiple of 12

# Expressions over `x` and `mask`, of two dimensions. `{e}` is another expression of the same dtype
# and shape, `{d}` a dimension. Exact ones do not round, so that an index of the result is certain.
EXACT = {
    "integer": [
        *("-({e})", "({e}) + 1", "({e}) * 3", "({e}) * mask", "({e}) // 3", "({e}) % 3", "~({e})"),
        *("({e}) >> 1", "({e}) << 1", "({e}) ^ 5", "({e}).clamp(1, 50)", "({e}).roll(1, {d})"),
        *("({e}).flip({d})", "torch.where(mask, {e}, x)", "torch.maximum({e}, x)", "({e}) & x"),
        *("torch.minimum({e}, x)", "({e}).masked_fill(mask, 3)", "({e}).cummax({d}).values"),
    ],
    "bool": [
        *(
            "~({e})",
            "({e}) & mask",
            "({e}) | x",
            "({e}) ^ mask",
            "({e}).flip({d})",
            "({e}) == mask",
        ),
        *("({e}).roll(1, {d})", "torch.where(mask, {e}, x)", "({e}) > mask", "({e}).logical_not()"),
    ],
    "float": [
        *("-({e})", "({e}).abs()", "torch.relu({e})", "({e}).clamp(-1, 2)", "({e}).flip({d})"),
        *("({e}).roll(1, {d})", "torch.where(mask, {e}, x)", "torch.maximum({e}, x)"),
        *("({e}).masked_fill(mask, 3)", "({e}).cummin({d}).values", "({e}).trunc()"),
    ],
}
ROUNDED = [
    *("({e}) % 0.75", "({e}) // 0.75", "({e}) * 1.5 + 0.25", "torch.sigmoid({e})", "({e}).exp()"),
    *("torch.fmod({e}, 0.75)", "({e}) / 3", "torch.tanh({e})", "torch.remainder(1.5, ({e}) + 9)"),
]
REDUCED = {
    "integer": [
        *("({e}).sum({d})", "({e}).prod({d})", "({e}).amax({d})", "({e}).amin({d})", "({e}).sum()"),
        *("({e}).sum({d}, dtype=x.dtype)", "({e}).cumsum({d}, dtype=x.dtype)", "({e}).amin()"),
        *("({e}).cumsum({d})", "({e}).any({d})", "({e}).all({d})", "({e}).float().mean({d})"),
        *("({e}).aminmax(dim={d}).max", "({e}).max({d}).values", "({e}).min({d}).values"),
        *("torch.count_nonzero({e}, {d})", "({e}).float().var({d})", "({e}).max()"),
        *("({e}).prod({d}, dtype=x.dtype)", "({e}).cummin({d}).values", "({e}).argmin({d})"),
    ],
    "bool": ["({e}).sum({d})", "({e}).any({d})", "({e}).all({d})", "({e}).cumsum({d})", "{e}"],
    "float": [
        *(
            "({e}).sum({d})",
            "({e}).mean({d})",
            "({e}).amax({d})",
            "({e}).amin({d})",
            "({e}).amax()",
        ),
        *("({e}).var({d})", "({e}).cumsum({d})", "({e}).softmax({d})", "({e}).logsumexp({d})"),
        *("({e}).max({d}).values", "({e}).norm(dim={d})", "({e}).any({d})", "({e}).min()"),
    ],
}
INDEXED = [
    *("({e}).argmax({d})", "({e}).argmin({d})", "({e}).max({d}).indices", "({e}).min({d}).indices"),
    *("({e}).argmax()", "({e}).gather({d}, ({e}).argmax({d}, keepdim=True))"),
    *("({e})[(x > 0).to(torch.uint8).argmax(0), 0]", "({e}).sort(dim={d}, stable=True).indices"),
    *("(({e}) > 0).to(torch.uint8).argmax({d})", "(({e}) != 0).to(torch.int8).argmin({d})"),
    *(
        "({e}).index_select({d}, ({e}).argmin({d}) % 4)",
        "({e}).gather({d}, x.sort(dim={d}, stable=True).indices)",
    ),
]
GUARDED = [
    *("z.reshape(-1, {p}).sum(1)", "z + 1 if z.shape[0] % {p} == 0 else z", "z.view({p}, -1) * 2"),
    *("z.unflatten(0, (z.shape[0] // {p}, {p}))", "torch.stack(z.split(z.shape[0] // {p}))"),
]


def family(dtype: str) -> str:
    return "bool" if dtype == "bool" else "integer" if dtype in INTEGERS else "float"


def expressions(dtype: str) -> list[str]:
    """Different expressions for a dtype, the same in every run."""
    choose = random.Random(dtype)
    kind = family(dtype)
    found: dict[str, None] = {}

    def nested(templates: list[str], depth: int) -> str:
        if depth == 0:
            return "x"
        return fill(choose.choice(templates), nested(templates, depth - 1))

    def fill(template: str, inner: str) -> str:
        return template.replace("{e}", inner).replace("{d}", str(choose.randrange(2)))

    while len(found) < MODULES:
        if kind != "bool" and choose.random() < 0.4:
            found[fill(choose.choice(INDEXED), nested(EXACT[kind], choose.randrange(3)))] = None
            continue
        inner = EXACT[kind] + (ROUNDED if kind == "float" and dtype != "float16" else [])
        found[fill(choose.choice(REDUCED[kind]), nested(inner, choose.randrange(3)))] = None
    guarded = [choose.choice(GUARDED).replace("{p}", str(choose.choice(PARTS))) for _ in range(3)]
    return [*found, *dict.fromkeys(guarded)]


class Expressions(nn.Module):
    """Computes all expressions of a dtype."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        self.texts = expressions(dtype)
        self.codes = [compile(text, text, "eval") for text in self.texts]

    def forward(self, x: Tensor, mask: Tensor, z: Tensor) -> dict[str, Tensor]:
        names = {"torch": torch, "x": x, "mask": mask, "z": z}
        codes = zip(self.texts, self.codes, strict=True)
        return {text: eval(code, dict(names)) for text, code in codes}


def example(dtype: str, rows: int, columns: int, length: int, seed: int) -> dict[str, Tensor]:
    """Arguments of these sizes with random values, every second time from few and special ones."""
    generator = torch.Generator().manual_seed(seed)
    kind = getattr(torch, dtype)
    special = seed % 2 == 1

    def values(*shape: int) -> Tensor:
        if dtype == "bool":
            return torch.rand(shape, generator=generator) > 0.5
        if dtype in INTEGERS:
            bounds = (0, 4) if special else (torch.iinfo(kind).min, torch.iinfo(kind).max + 1)
            return torch.randint(*bounds, shape, generator=generator).to(kind)
        if special:
            few = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0, -2.5, torch.inf, torch.nan, 3.0, 5.0])
            few = few[:6] if seed % 4 == 1 else few
            return few[torch.randint(0, len(few), shape, generator=generator)].to(kind)
        return torch.randn(shape, generator=generator).to(kind)

    mask = torch.rand((rows, columns), generator=generator) > 0.5
    return {"x": values(rows, columns), "mask": mask, "z": values(length)}


def main(directory: Path) -> None:
    """Export a package for each dtype."""
    warnings.simplefilter("ignore")  # indices out of range end the process: these are not
    free: Any = {0: Dim.AUTO, 1: Dim.AUTO}
    for dtype in DTYPES:
        aoti.export(
            Expressions(dtype),
            kwargs=example(dtype, 7, 45, 24, 0),
            dynamic_shapes={"x": free, "mask": free, "z": {0: Dim.AUTO}},
            path=directory / f"{dtype}.pt2",
            in_process=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
