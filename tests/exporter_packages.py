"""The packages that tests/exporting exports to see how: all in one process, which saves minutes.

usage: python tests/exporter_packages.py DIRECTORY

Writes down beside them what happened: results.json.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.attention.flex_attention import flex_attention

import aoti
from aoti.exporting.build.compiling import compile_program

# All in one process, which saves the start of one for each; and nothing here is about speed.
export = partial(aoti.export, in_process=True)

exporter = import_module("aoti.exporting.exporter")  # `aoti.export` is the function in it


class Twice(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + 2 * y


class Vector(nn.Module):
    """Takes a vector, and has weights in a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 10), nn.Linear(10, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.cond(x.sum() > 0, lambda y: self.second(y), lambda y: y[:3] * 2, (y,))


class Guarded(nn.Module):
    """Takes only some sizes of each argument, or branches on them."""

    def forward(
        self, even: Tensor, long: Tensor, short: Tensor, rows: Tensor, image: Tensor, many: Tensor
    ) -> dict[str, Tensor]:
        return {
            "branch": even + 1 if even.shape[0] % 2 == 0 else even - 1,
            "compared": long * 2 if long.shape[0] > short.shape[0] else short * 3,
            "rows": rows.reshape(-1, 4).sum(1),
            "image": nn.functional.pixel_unshuffle(image, 2),
            "many": many * 2 if many.numel() > 30 else many,
        }


GUARDED = {
    "even": torch.randn(8, 3),
    "long": torch.randn(9),
    "short": torch.randn(5),
    "rows": torch.randn(24),
    "image": torch.randn(2, 3, 16, 16),
    "many": torch.randn(8, 8),
}


def masks_reduced(x: Tensor) -> dict[str, Tensor]:
    """Reductions of `x` as 8-bit integers, by operator, dtype and dimension."""
    found = {}
    for dtype in (torch.uint8, torch.int8):
        narrow = x.to(dtype)
        for dim in (0, 1):
            most, least = narrow.max(dim), narrow.min(dim)
            results = {
                "argmax": narrow.argmax(dim),
                "argmin": narrow.argmin(dim),
                "max": most.values,
                "max's index": most.indices,
                "min": least.values,
                "min's index": least.indices,
                "amax": narrow.amax(dim, keepdim=True),
                "amin": narrow.amin(dim),
                "sum": narrow.sum(dim),
                "wrapped sum": narrow.sum(dim, dtype=dtype),
                "wrapped product": narrow.prod(dim, dtype=dtype),
                "wrapped sums": narrow.cumsum(dim, dtype=dtype),
                "any": narrow.any(dim),
                "element": x[narrow.argmax(0), 0],
            }
            name = str(dtype).removeprefix("torch.")
            found |= {f"{key} {name} {dim}": value for key, value in results.items()}
    return found


def divided(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Quotients and remainders of floats."""
    return {
        "remainder": a % b,
        "floored": a // b,
        "rounded down": torch.div(a, b, rounding_mode="floor"),
        "remainder of 3": a % 3,
        "remainder of infinity": a % torch.inf,
        "floored by 3": a // 3,
        "7 by": torch.remainder(7, b),
    }


def bools_reduced(x: Tensor) -> dict[str, Tensor]:
    """The largest and smallest of bools, by operator and dimension."""
    found = {"max": (x > 1).max(), "min": (x > 1).min()}
    for dim in (0, 1):
        most, least = (x > 1).max(dim), (x > 1).min(dim, keepdim=True)
        found |= {f"max {dim}": most.values, f"max's index {dim}": most.indices}
        found |= {f"min {dim}": least.values, f"min's index {dim}": least.indices}
        found |= {f"amax {dim}": (x > 1).amax(dim), f"amin {dim}": (x > 1).amin(dim)}
    return found


def special_values(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Operators that Inductor computes wrong for special values."""
    return {
        "acosh": a.acosh(),
        "nextafter": torch.nextafter(a, b),
        "nextafter, compared": torch.nextafter(a, b) > a,
        "nextafter of one number": torch.nextafter(a, b[:1]),
        "softshrink": torch.nn.functional.softshrink(a),
        "softshrink of 0.1": torch.nn.functional.softshrink(a, 0.1),
        "addcmul": torch.addcmul(a, b, a, value=0.25),
        "addcdiv": torch.addcdiv(a, b, a.abs() + 2, value=2.0),
    }


def margin_losses(x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The loss over labels, which end at -1."""
    loss = torch.nn.functional.multilabel_margin_loss
    return {
        f"{reduction} {name}": loss(x[rows], labels[rows], reduction=reduction)
        for reduction in ("none", "mean", "sum")
        for name, rows in (("of rows", slice(None)), ("of one row", 0))
    }


def powers_of_numbers(x: Tensor) -> dict[str, Tensor]:
    """Numbers to the power of integers, by dtype."""
    return {
        f"{base} to {dtype}": base ** (x & 7).to(dtype)
        for base in (-3, 0, 1, 2, 2.5)
        for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
    }


class Masks(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        bools = {f"{name} of bools": value for name, value in bools_reduced(x).items()}
        return masks_reduced(x) | bools | powers_of_numbers(x)


class Special(nn.Module):
    """Results by dtype, of mixed dtypes, and of labels."""

    def forward(self, pairs: dict[str, Any], x: Tensor, labels: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"losses": margin_losses(x, labels)}
        for dtype, pair in pairs.items():
            found[dtype] = special_values(*pair)
        (a, _), (_, narrow) = pairs["float32"], pairs["float16"]
        found["mixed"] = {
            "addcmul": torch.addcmul(a, narrow, narrow, value=2.0),
            "addcdiv": torch.addcdiv(a[:, None], narrow, a, value=0.5),
        }
        return found


class Quotients(nn.Module):
    def forward(self, pairs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for dtype in ("float16", "bfloat16", "float32", "float64"):
            results = divided(pairs[f"{dtype}_a"], pairs[f"{dtype}_b"])
            found |= {f"{dtype} {name}": value for name, value in results.items()}
        return found


ATTENTION = {(8, 8): 8, (40, 40): 16, (5, 24): 8, (33, 33): 32}  # queries, keys: size of a head


def attention_inputs() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values of 32 heads."""
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(torch.randn(8, 4, n, size, generator=generator) for n in (queries, keys, keys))
        for (queries, keys), size in ATTENTION.items()
    ]


class Attention(nn.Module):
    def forward(self, inputs: list[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
        return [flex_attention(*one) for one in inputs]


@contextlib.contextmanager
def compiling_fails(*, rewritten: bool) -> Iterator[list[tuple[bool, bool]]]:
    """Let Inductor fix a size where weights are frozen, and perhaps refuse what was rewritten.

    Give what was compiled: whether it was rewritten, and whether it was frozen.
    """
    seen: list[tuple[bool, bool]] = []

    def attempt(program: Any, job: Any, *rest: Any, **options: Any) -> list[str]:
        seen.append(("linear.default" not in str(program.graph_module.graph),
                     job.options["freezing"]))  # fmt: skip
        if seen[-1][0] and rewritten:
            raise aoti.ExportError(
                "cannot compile model: Assertion: not that\nAOTI_DEBUG=1 shows more"
            )
        return [] if job.options["freezing"] else compile_program(program, job, *rest, **options)

    def fixed_sizes(*_: object) -> str:
        return "rows of x" if seen[-1][1] else ""

    with (
        patch.object(exporter, "compile_program", attempt),
        patch.object(exporter, "fixed_sizes", fixed_sizes),
    ):
        yield seen


def main(directory: Path) -> None:
    """Export them all."""
    torch.manual_seed(0)
    results: dict[str, Any] = {}
    # In a process of its own, as by default, and into a directory that is not there yet.
    x = torch.ones(2, 3)
    done = aoti.export(Twice(), (x, x), path=directory / "new/twice.pt2", metadata={"k": "v"})
    with aoti.load(done) as model:
        results["twice"] = model(x.numpy(), 10 * x.numpy())[0, 0].item()

    program = torch.export.export(Twice(), (x, x))
    export(program, path=directory / "program.pt2")
    nested = dict.fromkeys(("twice", "twice/again"), (Twice(), (x, 2 * x)))
    export(nested, path=directory / "nested.pt2", golden=True, verify=True)

    vector = Vector().eval(), (torch.randn(12),)
    done = export(*vector, path=directory / "vector.pt2", verify=True)
    results["vector"] = done.path.name

    done = export(
        nn.Linear(3, 2),
        (torch.ones(2, 3),),
        path=directory / "three_threads.pt2",
        options={"cpp.threads": 3},
    )
    results["three_threads"] = dict(done.models["model"].signature.options)

    free = {name: dict.fromkeys(range(x.dim()), Dim.AUTO) for name, x in GUARDED.items()}
    done = export(
        Guarded(),
        kwargs=GUARDED,
        dynamic_shapes=free,
        path=directory / "guarded.pt2",
        verify=True,
    )
    results["guarded"] = [case.skipped for case in done.models["model"].cases]

    mask = torch.zeros(5, 45, dtype=torch.int64)
    rows: Any = {0: Dim.AUTO, 1: Dim.AUTO}
    masks = {"path": directory / "masks.pt2", "dynamic_shapes": (rows,)}
    export(Masks(), (mask,), **masks)
    names = [
        f"{dtype}_{n}" for dtype in ("float16", "bfloat16", "float32", "float64") for n in "ab"
    ]
    pairs = {name: torch.ones(57, dtype=getattr(torch, name[:-2])) for name in names}
    sizes = ({name: {0: Dim.AUTO} for name in names},)
    quotients = {"path": directory / "quotients.pt2", "dynamic_shapes": sizes}
    export(Quotients(), (pairs,), **quotients)

    labels = torch.tensor([[1, 0, -1, 2], [3, -1, -1, -1], [-1, 0, 1, 2]])
    dtypes = ("float16", "bfloat16", "float32")
    ones = {name: (torch.ones(57, dtype=getattr(torch, name)),) * 2 for name in dtypes}
    lengths = {name: ({0: Dim.AUTO}, {0: Dim.AUTO}) for name in dtypes}
    free: Any = (lengths, rows, rows)
    to = {"path": directory / "special.pt2", "dynamic_shapes": free}
    export(Special(), (ones, torch.ones(3, 4), labels), **to)

    attention = {"path": directory / "attention.pt2"}
    export(Attention(), (attention_inputs(),), **attention)

    for refused in (True, False):
        # A directory of its own, in which nothing but the package may be left.
        path = directory / f"refused-{refused}/m.pt2"
        net = nn.Linear(256, 300).eval()
        with compiling_fails(rewritten=refused) as seen:
            done = export(net, (torch.ones(4, 256),), path=path, verify=True)
        results[f"refused-{refused}"] = {
            "seen": seen,
            "notes": done.models["model"].signature.notes,
        }
    (directory / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
