"""Models of many kinds, each as ``aoti export tests/models.py:NAME`` takes it.

Every function returns (module, args, kwargs, dynamic_shapes). They are small: what counts is the
kind of code, of arguments and of results.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import register_dataclass
from torch.nn import functional as F

import aoti
import aoti.cli.group

BATCH = "batch=1..16"


class Dummy(nn.Module):
    """Convolution, pooling and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = F.max_pool2d(F.relu(self.conv(image)), 2)
        return self.head(features.mean((2, 3))), features


def dummy():
    return Dummy().eval(), torch.randn(2, 3, 16, 16), None, {"image": {0: BATCH}}


class Recurrent(nn.Module):
    """An LSTM whose state goes in and comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]):
        out, state = self.lstm(x, state)
        return self.head(out), state


def lstm():
    state = torch.zeros(1, 2, 16), torch.zeros(1, 2, 16)
    shapes = {"x": {0: BATCH}, "state": ({1: "batch"}, {1: "batch"})}
    return Recurrent().eval(), (torch.randn(2, 5, 8), state), None, shapes


class Vit(nn.Module):
    """A vision transformer of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, stride=8)
        self.position = nn.Parameter(torch.randn(1, 16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.position
        return self.head(self.encoder(tokens).mean(1))


def vit():
    return Vit().eval(), torch.randn(2, 3, 32, 32), None, {"image": {0: BATCH}}


class UNet(nn.Module):
    """Down, up again, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.out = nn.Conv2d(9, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([x, self.up(self.middle(self.down(x)))], 1))


def unet():
    half = torch.export.Dim("half", min=4, max=16)
    sizes = {0: BATCH, 2: 2 * half, 3: None}
    return UNet().eval(), torch.randn(2, 1, 16, 16), None, {"x": sizes}


class Nested(nn.Module):
    """Dicts of dicts in and out, and a submodule that somebody compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.compile(nn.Linear(4, 4))

    def forward(self, batch: dict) -> dict:
        y = self.linear(batch["x"]["left"]) + batch["x"]["right"]
        return {"y": {"sum": y, "parts": [y[:, :2], y[:, 2:]]}, "scaled": y * batch["scale"]}


def nested():
    batch = {
        "x": {"left": torch.randn(3, 4), "right": torch.randn(3, 4)},
        "scale": torch.tensor(2.0),
    }
    shapes = {"batch": {"x": {"left": {0: BATCH}, "right": {0: "batch"}}, "scale": None}}
    return Nested().eval(), (batch,), None, shapes


class Step(NamedTuple):
    """A namedtuple that nobody registered."""

    value: Tensor
    count: int


class Mixed(nn.Module):
    """Numbers and None among arguments and results."""

    def forward(self, x: Tensor, factor: float, mask: Tensor | None = None, mode: str = "mean"):
        y = x * factor if mask is None else x * mask
        step = Step(y.mean(1) if mode == "mean" else y.sum(1), 3)
        return {"step": step, "loss": None, "mode": mode, "y": y}


def mixed():
    kwargs = {"mask": None, "mode": "mean"}
    shapes = {"x": {0: BATCH}, "factor": None, "mask": None, "mode": None}
    return Mixed().eval(), (torch.randn(3, 4), 2.5), kwargs, shapes


class Selected(nn.Module):
    """As many rows come out as there are positive numbers, looked up in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.table(numbers)[numbers > 4]


def selected():
    return Selected().eval(), torch.arange(8), None, {"numbers": {0: "length=1..64"}}


@dataclass
class Scores:
    """A registered dataclass."""

    logits: Tensor
    hidden: Tensor
    loss: Tensor | None = None


register_dataclass(Scores)


class Structured(nn.Module):
    """Takes and returns what only this module knows; one output has NaN and infinities."""

    def forward(self, x: Tensor) -> Scores:
        return Scores(x.log(), x + 1)


def structured():
    return Structured().eval(), torch.tensor([[1.0, 0.0, -1.0]]).repeat(2, 1), None, None


class Pair(nn.Module):
    """A weight of many elements, and two of few, which Inductor likes to write into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale


def pair():
    return Pair().eval(), torch.randn(3, 4), None, {"x": {0: "rows"}}


NAMES = ("dummy", "lstm", "vit", "unet", "nested", "selected", "structured")


def main(directory: Path) -> None:
    """Export them all, each verified against eager, and write down what was compared."""
    torch.manual_seed(0)
    reports = {}
    for name in NAMES:
        exported = aoti.export(
            f"{__file__}:{name}",
            path=directory / f"{name}.pt2",
            golden=True,
            verify=True,
            in_process=True,
        )
        (model,) = exported.models.values()
        reports[name] = [[case.sizes, case.skipped] for case in model.cases]
    (directory / "reports.json").write_text(json.dumps(reports))
    aoti.export(
        {"first": f"{__file__}:pair", "second": pair()},
        path=directory / "several.pt2",
        preset="updatable",
        dims={"rows": "0..8"},
        in_process=True,
    )
    # In a process of its own, from the command line.
    with (directory / "mixed.json").open("w") as file, contextlib.redirect_stdout(file):
        code = aoti.cli.group.run(
            ["export", f"{__file__}:mixed", "-o", str(directory / "mixed.pt2"), "--verify",
             "--golden", "--measure", "--json", "--metadata", "author=tests", "--dim", "batch=1..4",
             "--set", "cpp.enable_kernel_profile=false"]
        )  # fmt: skip
    assert code == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
