"""What cannot be exported is told in two lines, with the place in the code; no file is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.export import Dim

import aoti
from aoti.exporting.build import packing

ROOT = Path(__file__).parents[2]
X = torch.ones(3, 4)


class Empty:
    """An object without tensors."""


class Add(nn.Module):
    def forward(self, x, y):
        return x + y


class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Returns(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.make = make
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.make(self.linear(x))


class ReturnsOperand(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x, lambda x: -x, (x,))


class Keywords(nn.Module):
    def forward(self, **named):
        return named["a"] + named["b"]


class NeedsTorch(nn.Module):
    """Inductor leaves a call of an operator that only PyTorch's Python side has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(8, 8, 3, 2)

    def forward(self, x, z):
        return self.layer(x), torch.exp(z)


class Position(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(16, 4))

    def forward(self, x):
        return x + self.table[: x.shape[0]]


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x + self.calls


BATCH = {0: Dim("batch", min=1, max=64)}
WIDE = {"x": BATCH}
FAILURES = {
    "a branch on data": (
        Branch(), (X,), {},
        r"cannot trace Branch: the code branches on .*test_error_messages.py:\d+, in "
        r"forward: if x.sum\(\) > 0:",
    ),
    "an output of another type": (
        Returns(lambda x: {x}), (X,), {}, "torch does not know how to flatten the type set",
    ),
    "an object without tensors": (
        Returns(lambda _: Empty()), (X,), {}, "the type Empty, and no tensors are found in it",
    ),
    "an object without tensors as input": (
        Returns(lambda x: x), (Empty(),), {}, r"(?s)the type Empty, .*pass examples that have",
    ),
    "a number that changes": (
        Returns(lambda x: (x, x.shape[0])), (X,), {"dynamic_shapes": WIDE}, "result 1 is a number",
    ),
    "examples that differ": (
        Add(), (X, torch.ones(5, 4)), {"dynamic_shapes": (BATCH, BATCH)},
        "size 'batch' is 3 in one example and 5 in another",
    ),
    "sizes that must be equal": (
        Add(), (X, X), {"dynamic_shapes": (BATCH, None)}, "the module fixes it at 3",
    ),
    "too wide a range": (
        Position(), (X,), {"dynamic_shapes": WIDE},
        "(?s)whole range of size 'batch'.*batch at most 16",
    ),
    "an example out of range": (
        Returns(lambda x: x), (X,), {"dynamic_shapes": {"x": {0: "batch=4..8"}}},
        "an example has size 3, outside of the range 4..8",
    ),
    "an example of size 1": (
        Returns(lambda x: x), (X[:1],), {"dynamic_shapes": WIDE}, "torch treats 0 and 1 as fixed",
    ),
    "no such dimension": (
        Returns(lambda x: x), (X,), {"dynamic_shapes": {"x": {5: "batch"}}},
        "dimension 5 of an example of shape",
    ),
    "two devices": (
        Returns(lambda x: x), (X.to("meta"),), {}, "the module is on cpu, the example arguments",
    ),
    "a device that is not there": (
        Returns(lambda x: x), (X,), {"device": "xpu"}, "device 'xpu' cannot be used here",
    ),
    "arguments that do not fit": (
        Add(), (X,), {}, "do not fit forward.*missing a required argument: 'y'",
    ),
    "a branch that returns its operand": (
        ReturnsOperand(), (X,), {}, r"(?s)do not support aliasing.*`return input.clone\(\)`",
    ),
    "dynamic sizes of **kwargs": (
        Keywords(), (),
        {"kwargs": {"a": X, "b": X}, "dynamic_shapes": {"named": {"a": BATCH, "b": BATCH}}},
        r"(?s)\*\*kwargs, which torch does not support.*name arguments",
    ),
    "a package that cannot be loaded without torch": (
        NeedsTorch(), (torch.ones(1, 8, 4, 4), torch.ones(3, dtype=torch.complex64)), {},
        "cannot be loaded without torch: .*prims::inductor_force_stride_order",
    ),
    "buffers that change": (Counts(), (X,), {}, "the module changes its buffers .calls."),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_in_two_lines(name, tmp_path):
    module, args, options, message = FAILURES[name]
    with pytest.raises(aoti.ExportError, match=message) as caught:
        aoti.export(module.eval(), args, path=tmp_path / "new/m.pt2", **options)
    first, *rest = str(caught.value).splitlines()
    assert len(rest) == 1, str(caught.value)
    assert len(first) < 400
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_torchs_own_error_is_shown_only_for_debugging(tmp_path, monkeypatch, value, shown):
    monkeypatch.setenv("AOTI_DEBUG", value)
    module, args, options, _ = FAILURES["a branch on data"]
    with pytest.raises(aoti.ExportError) as caught:
        aoti.export(module.eval(), args, path=tmp_path / "m.pt2", **options)
    assert (caught.value.__cause__ is not None) == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fast"}, "no preset 'fast': there are portable, native, updatable"),
        ({"options": {"cpp.marhc": "native"}}, "did you mean 'cpp.march'"),
        ({"options": {"aot_inductor.package": False}}, "reserved for the exporter"),
        (
            {"options": {"aot_inductor.package_constants_on_disk_format": "pickle_weights"}},
            "not into pickles",
        ),
        ({"dims": {"batch": "1-64"}}, "NAME=MIN..MAX"),
        ({"dims": {"batch": "1..64"}}, "the dynamic shapes do not name a size batch"),
        ({"passes": ["faster"]}, "no pass 'faster'"),
        ({"name": "a/.."}, "a model's name"),
        ({"dynamic_shapes": ({0: "b=1..2"}, {0: "b=1..3"})}, "size 'b' has two values"),
        ({"buffers": "keep"}, "'refuse', 'reset' or 'arguments'"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(aoti.ConfigError, match=message):
        aoti.export(Add(), (X, X), path=tmp_path / "m.pt2", **options)
    assert not any(tmp_path.iterdir())


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    module = nn.Linear(4, 2)
    file = tmp_path / "weights.pth"
    cases = {
        "lacks bias": {"weight": module.weight},
        "has unknown more": {**module.state_dict(), "more": X},
        r"weight is \(2, 3\) there": {"weight": torch.ones(2, 3), "bias": torch.ones(2)},
        "is not a state dict": [1, 2],
    }
    for message, content in cases.items():
        torch.save(content, file)
        with pytest.raises(aoti.ExportError, match=message):
            aoti.export(module, (X,), path=tmp_path / "m.pt2", checkpoint=file)
    file.write_bytes(b"nonsense")
    for name in (file, tmp_path / "none.safetensors"):
        with pytest.raises(aoti.ExportError, match="cannot read checkpoint"):
            aoti.export(module, (X,), path=tmp_path / "m.pt2", checkpoint=name)
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "m.pt2"
    target.write_text("before")

    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 19))
    with (
        pytest.raises(aoti.ExportError, match="the disk is full"),
        packing.replacing(target) as partial,
    ):
        packing.write_package(partial, {"model": []}, {})
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_static_sizes_are_a_last_resort_that_is_warned_of(tmp_path, monkeypatch):
    tried = []

    def stop(*_, **__):
        raise aoti.ExportError("compiling")

    monkeypatch.setattr(sys.modules["aoti.exporting.exporter"], "compile_program", stop)
    with (
        pytest.warns(UserWarning, match="all sizes are fixed.*the module fixes it at 3"),
        pytest.raises(aoti.ExportError, match="compiling"),
    ):
        aoti.export(
            Add(), (X, X), path=tmp_path / "m.pt2", dynamic_shapes=({0: "batch"}, None),
            or_static=True, progress=tried.append,
        )  # fmt: skip
    ways = ["non-strict", "strict", "non-strict with fixed sizes"]
    assert tried[:3] == [f"tracing, {way}" for way in ways]


@pytest.fixture
def start_export(tmp_path):
    """Start an export of a small model in a process; everything temporary goes to one place."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    source = (
        "import torch\ndef make():\n    return torch.nn.Linear(4, 2).eval(), torch.ones(3, 4)\n"
    )
    (tmp_path / "small.py").write_text(source)

    def start(**environment):
        command = [sys.executable, "-W", "ignore", "-m", "aoti", "export"]
        return subprocess.Popen(
            [*command, str(tmp_path / "small.py:make"), "-o", str(tmp_path / "out/new/m.pt2")],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp"),
                 **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # Where the tests run in the background of a shell, it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip

    return start


def leftovers(tmp_path: Path) -> list[str]:
    """Files of ours. Inductor's cache is the user's, and torch may put some of it into TMPDIR."""
    places = (tmp_path / "tmp").glob("aoti*"), (tmp_path / "out").rglob("*")
    return [str(path) for place in places for path in place]


def test_without_a_compiler_that_is_said(start_export, tmp_path):
    process = start_export(CXX="/nowhere/g++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "no C++ compiler was found on this machine" in said
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_export_leaves_nothing(start_export, tmp_path, how):
    process = start_export(TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    for line in process.stderr:
        if "generating code" in line:
            break
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (leftovers(tmp_path) or Path(f"/proc/{child}").exists()):
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
    assert leftovers(tmp_path) == []  # killed, it could not; the child did it
