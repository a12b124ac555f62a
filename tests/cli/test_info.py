"""``aoti info`` and ``aoti check``: packages of every kind, also those that cannot run here."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aoti.cli.group import run
from aoti.machine.gpu import gpus


def rewritten(source: Path, target: Path, **metadata: str) -> Path:
    """The same package with other metadata."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("_metadata.json"):
                record = json.loads(content)
                record.pop("aoti.signature", None)
                content = json.dumps({**record, **metadata}).encode()
            elif info.filename.endswith("wrapper.cpp") and "cuda" in metadata.values():
                content = content.replace(
                    b"_expected_device_type = 0", b"_expected_device_type = 1"
                )
            new.writestr(info, content)
    return target


@pytest.fixture
def cuda(packages, tmp_path) -> Path:
    """A package that says it is for a GPU of another kind than there is here."""
    return rewritten(
        packages / "stock.pt2",
        tmp_path / "cuda.pt2",
        AOTI_DEVICE_KEY="cuda",
        AOTI_COMPUTE_CAPABILITY="90",
    )


@pytest.fixture
def said(capsys):
    """Run a command; give its exit code and its JSON."""

    def said(*arguments):
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return said


def test_info_tells_all_that_the_exporter_recorded(packages, said):
    code, document = said("info", packages / "lookup.pt2")
    (model,) = document["models"]
    assert code == 0
    assert (model["device"], model["isa"], model["weights"]) == ("cpu", "AVX2", "file")
    assert model["exporter"].startswith("aoti ")
    assert model["ranges"] == {"batch": {"min": 1, "max": 1024}}
    (index,) = model["inputs"]
    assert (index["name"], index["dtype"], index["shape"]) == ("index", "int64", ["batch"])
    assert index["values"] == [-5, 4]
    assert (model["ranges_enforced"], model["may_abort"]) == (True, False)
    assert "aoti.signature" not in model["metadata"]


def test_info_shows_constants_ranges_and_what_is_written_to(packages, capsys):
    assert run(["info", str(packages / "scalars.pt2")]) == 0
    assert "pass this value" in capsys.readouterr().out
    assert run(["info", str(packages / "inplace.pt2")]) == 0
    assert "written to" in capsys.readouterr().out
    assert run(["info", str(packages / "lookup.pt2")]) == 0
    assert "batch (1..1024)" in (out := capsys.readouterr().out)
    assert "values -5..4" in out


def test_info_warns_of_indices_that_can_end_the_process(packages, capsys):
    assert run(["info", str(packages / "stock_abort.pt2")]) == 0
    assert "warning: an index out of its table's range ends the process" in capsys.readouterr().out
    for name in ("stock_lookup", "stock", "lookup"):
        assert run(["info", str(packages / f"{name}.pt2")]) == 0
        assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("stock", "code"),
        ("weights_mmap", "code"),
        ("weights_blob", "file"),
        ("weights_pickle", "pickles"),
        ("weights_none", "missing"),
        ("custom", "none"),
    ],
)
def test_info_tells_where_the_weights_are(packages, said, name, where):
    _, document = said("info", packages / f"{name}.pt2")
    assert document["models"][0]["weights"] == where


def test_info_works_for_a_gpu_that_is_not_here(cuda, said, capsys):
    code, document = said("info", cuda)
    (model,) = document["models"]
    assert (code, model["device"], model["compute_capability"]) == (0, "cuda", "90")
    assert model["inputs"][0]["device"] == "cuda"
    assert run(["info", str(cuda)]) == 0
    assert "compute capability" in capsys.readouterr().out


@pytest.mark.skipif(bool(gpus()[0]), reason="there is a GPU")
def test_check_says_why_a_package_for_a_gpu_does_not_run(cuda, said):
    code, document = said("check", cuda)
    assert (code, document["ok"], document["model_check"]["ok"]) == (1, False, False)
    (gpu,) = [f for f in document["model_check"]["findings"] if f["check"] == "gpu"]
    assert "the package needs a GPU, and there is none: " in gpu["message"]
    assert "export the model on the CPU" in gpu["fix"]
    assert document["device_check"]["findings"][0]["check"] == "driver"
    assert document["inference_smoke"] is None


def test_check_of_an_installation(said):
    code, document = said("check")
    assert (code, document["ok"], document["model_check"]) == (0, True, None)
    assert document["backend"] == document["libtorch"]["backend"]
    assert document["version"]
    checks = [f["check"] for f in document["installation"]["findings"]]
    assert checks == ["native", "build", "libtorch"]


def test_check_of_a_model_and_a_run(packages, tmp_path, rows, said, capsys):
    np.save(tmp_path / "in.npy", rows)
    code, document = said("check", packages / "mlp.pt2", "-i", tmp_path / "in.npy")
    assert (code, document["ok"]) == (0, True)
    assert document["model_check"]["findings"][-1]["check"] == "load"
    assert "float32 (3, 1)" in document["inference_smoke"]["findings"][0]["message"]
    assert run(["check", str(packages / "mlp.pt2")]) == 0
    assert "this CPU has the instructions of AVX2" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("custom", "operators", "aoti_tests::halve"),
        ("unlinked", "symbols", "not linked with libtorch"),
    ],
)
def test_check_names_what_is_wrong_with_a_package(packages, said, name, check, words):
    code, document = said("check", packages / f"{name}.pt2")
    assert (code, document["model_check"]["ok"]) == (1, False)
    (bad,) = [f for f in document["model_check"]["findings"] if not f["ok"]]
    assert bad["check"] == check
    assert words in bad["message"]


def test_check_of_another_machine(packages, tmp_path, said):
    package = rewritten(
        packages / "mlp.pt2", tmp_path / "m.pt2", AOTI_MACHINE="riscv64", AOTI_CPU_ISA="AMX_TILE"
    )
    code, document = said("check", package)
    assert code == 1
    bad = {f["check"]: f for f in document["model_check"]["findings"] if not f["ok"]}
    assert "compiled for Linux on riscv64" in bad["platform"]["message"]
    assert "export the model on a Linux" in bad["platform"]["fix"]


def test_check_of_a_run_that_fails(packages, tmp_path, said):
    np.save(tmp_path / "in.npy", np.array([0, 99]))
    code, document = said("check", packages / "stock_lookup.pt2", "-i", tmp_path / "in.npy")
    assert code == 1
    assert "index out of bounds" in document["inference_smoke"]["findings"][0]["message"]


def test_check_of_a_call_that_is_wrong(packages, tmp_path, capsys):
    assert run(["check", "missing.pt2"]) == 2
    assert run(["check", "-i", "in.npy"]) == 2
    assert run(["check", "--device", "gpu"]) == 2
    assert run(["check", str(packages / "mlp.pt2"), "--model-name", "other"]) == 2
    capsys.readouterr()
    (tmp_path / "m.pt2").write_bytes(b"no zip")
    assert run(["check", str(tmp_path / "m.pt2")]) == 1
    assert "not a zip archive" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["auto", "libtorch"])
def test_check_works_where_no_libtorch_is(packages, said, monkeypatch, run_python, engine):
    program = """
import sys
from aoti.cli.group import run
sys.exit(run(["check", sys.argv[1], "--json"]))
"""
    env = {"LIBTORCH": "/nowhere", "AOTI_ENGINE": engine}
    out = run_python(program, packages / "mlp.pt2", check=False, **env)
    assert out.startswith("{"), out
    document = json.loads(out[: out.rindex("}") + 1])
    assert document["ok"] is (engine == "auto")
    if engine == "auto":  # the native engine runs it
        assert document["model_check"]["findings"][-1]["check"] == "load"
        return
    (libtorch,) = [f for f in document["installation"]["findings"] if not f["ok"]]
    assert "LIBTORCH=/nowhere holds no lib/libtorch_cpu.so" in libtorch["message"] + libtorch["fix"]
    assert document["model_check"]["ok"] is True
    assert document["model_check"]["findings"][-1]["check"] == "weights"
