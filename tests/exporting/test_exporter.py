"""Exporting: what it writes, and what it leaves when it fails. (It runs in test_model.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import aoti

PRELUDE = """
import sys, torch, aoti
from pathlib import Path
class Twice(torch.nn.Module):
    def forward(self, x, y):
        return x + 2 * y
"""


@pytest.fixture
def run_export(tmp_path):
    """Run an exporting program, whose torch may warn, in a directory of its own."""

    def run(program: str) -> str:
        process = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PRELUDE + program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


def test_one_tensor_given_twice_is_two_inputs(run_export, tmp_path):
    out = run_export(
        """
x = torch.ones(2, 3)
path = aoti.export(Twice(), (x, x), path=Path("new/twice.pt2"), metadata={"k": "v"})
model = aoti.load(path)
import numpy as np
print(model(np.full((2, 3), 1, np.float32), np.full((2, 3), 10, np.float32))[0, 0])
"""
    )
    assert float(out) == 21
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["twice.pt2"]
    assert aoti.load_metadata_from_package(tmp_path / "new/twice.pt2")["k"] == "v"


def test_packages_are_portable(packages):
    if os.uname().machine != "x86_64":
        pytest.skip("the instruction set is chosen on x86-64 only")
    assert aoti.load_metadata_from_package(packages / "mlp.pt2")["AOTI_CPU_ISA"] == "AVX2"
    with aoti.Package(packages / "mlp.pt2") as package:
        assert "-march=x86-64-v3" in package.source()


def test_a_failing_export_leaves_nothing(run_export, tmp_path):
    (tmp_path / "kept.pt2").write_text("before")
    out = run_export(
        """
class Branch(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x
for module, name in ((Branch(), "kept.pt2"), (Branch(), "kept.pt")):
    try:
        aoti.export(module, (torch.ones(2),), path=name)
    except Exception as error:
        print(type(error).__name__)
"""
    )
    assert out.split()[-1] == "ValueError"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.pt2"]
    assert (tmp_path / "kept.pt2").read_text() == "before"


def test_an_exported_program_is_compiled_as_it_is(run_export, tmp_path):
    run_export(
        """
program = torch.export.export(Twice(), (torch.ones(2, 3), torch.ones(2, 3)))
aoti.export(program, path="program.pt2")
"""
    )
    with aoti.load(tmp_path / "program.pt2") as model:
        assert [spec.shape for spec in model.inputs] == [(2, 3), (2, 3)]


ATTEMPTS = """
from importlib import import_module
from aoti.errors import ExportError
export = import_module("aoti.exporting.exporter")
compile_program, seen = export.compile_program, []
def attempt(program, job, *rest, **options):
    rewritten = "linear.default" not in str(program.graph_module.graph)
    seen.append((rewritten, job.options["freezing"]))
    if rewritten and refused:
        raise ExportError("cannot compile model: Assertion: not that\\nAOTI_DEBUG=1 shows more")
    return compile_program(program, job, *rest, **options) if not job.options["freezing"] else []
export.compile_program = attempt
export.fixed_sizes = lambda *_: "rows of x" if seen[-1][1] else ""
x = torch.ones(4, 256)
net = torch.nn.Linear(256, 300).eval()
done = aoti.export(net, (x,), path="m.pt2", verify=True, in_process=True)
print(seen)
print(*done.models["model"].signature.notes, sep=chr(10))
print([path.name for path in Path().iterdir()])
"""


@pytest.mark.parametrize("refused", [True, False])
def test_what_cannot_be_compiled_is_compiled_with_less(run_export, refused):
    seen, *notes, left = run_export(f"refused = {refused}\n{ATTEMPTS}").splitlines()
    first = [(True, True), *([(False, True)] if refused else [])]
    assert seen == str([*first, (False, False)])
    failed = "not rewritten, because that does not compile: Assertion: not that"
    thawed = "linears: not rewritten: without freezing, every call would compute the new weights"
    assert (failed in notes, thawed in notes) == (refused, not refused)
    assert "not frozen, because Inductor would then fix rows of x" in notes
    assert left == "['m.pt2']"


def test_what_the_machine_fails_at_is_not_tried_again(run_export):
    out = run_export(
        """
from importlib import import_module
from aoti.exporting.error_messages import explain_text
export = import_module("aoti.exporting.exporter")
def attempt(*_, **__):
    print("compiling")
    raise explain_text("OSError: No space left on device", "compile model", "")
export.compile_program = attempt
net = torch.nn.Linear(256, 300).eval()
try:
    aoti.export(net, (torch.ones(4, 256),), path="m.pt2")
except aoti.ExportError as error:
    print(error)
"""
    )
    assert out.splitlines()[:2] == ["compiling", "cannot compile model: the disk is full"]


VECTOR = """
class Vector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(12, 10), torch.nn.Linear(10, 3, bias=False)
    def forward(self, x):
        y = self.first(x)
        return torch.cond(x.sum() > 0, lambda y: self.second(y), lambda y: y[:3] * 2, (y,))
done = aoti.export(Vector().eval(), (torch.randn(12),), path="vector.pt2", verify=True)
print(done.path)
"""


def test_a_vector_and_branches_with_weights(run_export):
    assert run_export(VECTOR).strip() == "vector.pt2"


def test_the_stock_loader_runs_what_is_exported_here(packages, run_export):
    out = run_export(
        f"""
import json
x = torch.ones(2, 10)
model = torch._inductor.aoti_load_package({str(packages / "mlp.pt2")!r})
print(json.dumps(model(x).tolist()))
"""
    )
    import numpy as np

    with aoti.load(packages / "mlp.pt2") as model:
        assert model(np.ones((2, 10), np.float32)).tolist() == json.loads(out)
