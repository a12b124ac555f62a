"""Exporting: what it writes, and what it leaves when it fails. (It runs in test_model.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import aoti
from aoti.exporting.error_messages import explain_text


@pytest.fixture
def results(exporter_packages):
    """What the exports of tests/exporter_packages.py gave."""
    return json.loads((exporter_packages / "results.json").read_text())


def test_one_tensor_given_twice_is_two_inputs(exporter_packages, results):
    path = exporter_packages / "new/twice.pt2"
    assert results["twice"] == 21
    assert [path.name for path in path.parent.iterdir()] == ["twice.pt2"]
    assert aoti.load_metadata_from_package(path)["k"] == "v"


def test_packages_are_portable(packages):
    if os.uname().machine != "x86_64":
        pytest.skip("the instruction set is chosen on x86-64 only")
    assert aoti.load_metadata_from_package(packages / "mlp.pt2")["AOTI_CPU_ISA"] == "AVX2"
    with aoti.Package(packages / "mlp.pt2") as package:
        assert "-march=x86-64-v3" in package.source()


class Branch(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_failing_export_leaves_nothing(tmp_path):
    (tmp_path / "kept.pt2").write_text("before")
    for name, error in (("kept.pt2", aoti.ExportError), ("kept.pt", ValueError)):
        with pytest.raises(error):
            aoti.export(Branch(), (torch.ones(2),), path=tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.pt2"]
    assert (tmp_path / "kept.pt2").read_text() == "before"


def test_an_exported_program_is_compiled_as_it_is(exporter_packages):
    with aoti.load(exporter_packages / "program.pt2") as model:
        assert [spec.shape for spec in model.inputs] == [(2, 3), (2, 3)]


def test_names_of_models_may_have_slashes(exporter_packages):
    x = np.ones((2, 3), np.float32)
    for name in ("twice", "twice/again"):
        path = exporter_packages / "nested.pt2"
        with aoti.load(path, model_name=name, self_test=True) as model:
            assert model(x, 10 * x).tolist() == (21 * x).tolist()


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b"])
def test_a_name_that_is_no_place_in_a_package_is_refused(name, tmp_path):
    with pytest.raises(aoti.ConfigError, match="a model's name consists of"):
        aoti.export(torch.nn.Linear(2, 2), path=tmp_path / "m.pt2", name=name)


@pytest.mark.parametrize("refused", [True, False])
def test_what_cannot_be_compiled_is_compiled_with_less(exporter_packages, results, refused):
    seen, notes = results[f"refused-{refused}"]["seen"], results[f"refused-{refused}"]["notes"]
    first = [[True, True], *([[False, True]] if refused else [])]
    assert seen == [*first, [False, False]]
    failed = "not rewritten, because that does not compile: Assertion: not that"
    thawed = "linears: not rewritten: without freezing, every call would compute the new weights"
    assert (failed in notes, thawed in notes) == (refused, not refused)
    assert "not frozen, because Inductor would then fix rows of x" in notes
    left = exporter_packages / f"refused-{refused}"
    assert [path.name for path in left.iterdir()] == ["m.pt2"]


def test_what_the_machine_fails_at_is_not_tried_again(tmp_path, monkeypatch):
    tried = []

    def attempt(*_, **__):
        tried.append("compiling")
        raise explain_text("OSError: No space left on device", "compile model", "")

    monkeypatch.setattr(sys.modules["aoti.exporting.exporter"], "compile_program", attempt)
    net = torch.nn.Linear(256, 300).eval()
    with pytest.raises(aoti.ExportError, match=r"^cannot compile model: the disk is full\n"):
        aoti.export(net, (torch.ones(4, 256),), path=tmp_path / "m.pt2")
    assert tried == ["compiling"]


def test_a_vector_and_branches_with_weights(exporter_packages, results):
    assert results["vector"] == "vector.pt2"
    assert (exporter_packages / "vector.pt2").exists()


def test_the_stock_loader_runs_what_is_exported_here(packages):
    program = """
import json, sys, torch
model = torch._inductor.aoti_load_package(sys.argv[1])
print(json.dumps(model(torch.ones(2, 10)).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, packages / "mlp.pt2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with aoti.load(packages / "mlp.pt2") as model:
        assert model(np.ones((2, 10), np.float32)).tolist() == json.loads(done.stdout)
