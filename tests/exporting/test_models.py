"""Models as people have them: exported by one command, equal to eager, called as they were."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import aoti
from aoti.cli.group import run

ENDS = {
    "dummy": {"batch": (1, 16)},
    "lstm": {"batch": (1, 16)},
    "vit": {"batch": (1, 16)},
    "unet": {"batch": (1, 16), "half": (4, 16)},
    "nested": {"batch": (1, 16)},
    "selected": {"length": (1, 64)},
}


@pytest.fixture
def said(capsys):
    """Run a command; give its exit code and its JSON."""

    def said(*arguments):
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return said


@pytest.mark.parametrize("name", ENDS)
def test_verified_at_both_ends_of_every_range(models, name):
    """The comparison itself ran at the export, which fails if anything differs."""
    cases = json.loads((models / "reports.json").read_text())[name]
    assert all(skipped is None for _, skipped in cases)
    for symbol, ends in ENDS[name].items():
        assert set(ends) <= {sizes[symbol] for sizes, _ in cases}


@pytest.mark.parametrize("name", [*ENDS, "structured", "mixed"])
def test_golden_values_hold(models, name, said):
    aoti.load(models / f"{name}.pt2", self_test=True).close()
    code, document = said("verify", models / f"{name}.pt2")
    assert (code, document["ok"]) == (0, True)
    assert all(output["nan"] == output["inf"] == 0 for output in document["outputs"])


def test_code_has_no_tables_for_debuggers(models):
    with zipfile.ZipFile(models / "dummy.pt2") as archive:
        (code,) = (archive.read(name) for name in archive.namelist() if name.endswith(".so"))
    assert b".debug_line" not in code


def with_golden(source, target, change):
    """The same package with other golden values."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if "/golden/" in info.filename:
                content = change(content)
            if content is not None:
                new.writestr(info.filename, content)
    return target


def swapped(content):
    """Another output's values for the first one: the input's, which are as many."""
    record = json.loads(content)
    record["outputs"][1]["data"] = record["inputs"][0]["data"]
    return json.dumps(record)


def test_values_that_differ_are_told(models, tmp_path, said, capsys):
    path = with_golden(models / "structured.pt2", tmp_path / "m.pt2", swapped)
    with pytest.raises(aoti.SelfTestError, match=r"output hidden .*6 of 6 elements differ"):
        aoti.load(path, self_test=True)
    code, document = said("verify", path)
    assert (code, document["ok"]) == (1, False)
    assert [output["ok"] for output in document["outputs"]] == [True, False]
    assert said("verify", path, "--atol", "1")[0] == 0
    assert run(["verify", str(path)]) == 1
    assert "elements differ" in capsys.readouterr().out


def test_nan_and_infinities_are_counted(models, tmp_path, said):
    def finite(content):
        record = json.loads(content)
        record["outputs"][0]["data"] = record["outputs"][1]["data"]
        return json.dumps(record)

    path = with_golden(models / "structured.pt2", tmp_path / "m.pt2", finite)
    _, document = said("verify", path)
    output = document["outputs"][0]
    assert (output["name"], output["nan"], output["inf"]) == ("logits", 2, 2)


def test_missing_and_damaged_golden_values_are_said(models, packages, tmp_path, capsys):
    with pytest.raises(aoti.PackageError, match=r"holds no golden values.*golden=True"):
        aoti.load(packages / "mlp.pt2", self_test=True)
    assert run(["verify", str(packages / "mlp.pt2")]) == 1
    for damage in (b"{", b"[]", b'{"inputs": [1], "outputs": []}'):
        path = with_golden(
            models / "dummy.pt2", tmp_path / "m.pt2", lambda _, damage=damage: damage
        )
        with pytest.raises(aoti.PackageError, match=r"golden values .* are damaged"):
            aoti.load(path, self_test=True)


def test_numbers_none_and_namedtuples_come_back(models):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with aoti.load(models / "mixed.pt2") as model:
        result = model(x, 2.5, mask=None, mode="mean")
        assert list(result) == ["step", "loss", "mode", "y"]
        assert (result["loss"], result["mode"], result["step"].count) == (None, "mean", 3)
        np.testing.assert_allclose(result["y"], x * 2.5)
        np.testing.assert_allclose(result["step"].value, x.mean(1) * 2.5)
        assert [spec.name for spec in model.outputs] == ["value", "y"]
        assert len(model.signature.results) == 5
        out = {**result, "y": np.empty_like(x), "step": result["step"]._replace(value=None)}
        assert model(x, 2.5, mask=None, mode="mean", out=out)["y"] is out["y"]
        with pytest.raises(aoti.InputError, match=r"exported with 2.5, got 3.0"):
            model(x, 3.0, mask=None, mode="mean")
        with pytest.raises(aoti.InputError, match="exported with None"):
            model(x, 2.5, mask=x, mode="mean")


def test_dataclasses_come_back_as_dicts(models):
    with aoti.load(models / "structured.pt2") as model:
        result = model(np.ones((2, 3), np.float32))
    assert list(result) == ["logits", "hidden", "loss"]
    assert result["loss"] is None
    assert result["hidden"].tolist() == [[2.0] * 3] * 2


def test_as_many_rows_come_out_as_the_data_has(models):
    with aoti.load(models / "selected.pt2") as model:
        assert model.inputs[0].values == (0, 9)
        for numbers, rows in (([1, 2], 0), ([5, 1, 9], 2)):
            assert model(np.array(numbers)).shape == (rows, 4)


def test_the_command_line_says_what_it_did(models):
    document = json.loads((models / "mixed.json").read_text())
    (model,) = document["models"]
    assert (model["name"], model["preset"]) == ("model", "portable")
    assert model["options"]["cpp.enable_kernel_profile"] is False
    assert model["attempts"] == [{"how": "non-strict", "error": None}]
    assert {case["sizes"]["batch"] for case in model["verified"]} >= {1, 4}
    assert model["milliseconds"].keys() == {"package", "eager", "stock"}
    assert document["bytes"] == (models / "mixed.pt2").stat().st_size


def test_info_says_what_was_given_up(models, said, capsys):
    _, document = said("info", models / "mixed.pt2")
    (model,) = document["models"]
    assert (model["preset"], model["golden"]) == ("portable", True)
    assert model["options"]["freezing"] is True
    assert model["metadata"] == {"author": "tests"}
    assert run(["info", str(models / "mixed.pt2")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cannot be replaced" in out
    assert "run them with aoti verify" in out
    # With oneDNN's packed weights, Inductor would fix the batch of a frozen LSTM.
    _, document = said("info", models / "lstm.pt2")
    assert any(note.startswith("frozen") for note in document["models"][0]["notes"])


def test_an_updatable_package_keeps_the_names_of_all_weights(models):
    path = models / "several.pt2"
    with aoti.Package(path) as package:
        assert package.models == ("first", "second")
        assert package.weights("first") == "file"
    with aoti.load(path, model_name="second") as model:
        assert set(model.constant_fqns) == {"linear.weight", "linear.bias", "scale"}
        assert model(np.ones((0, 4), np.float32)).shape == (0, 2)
        with pytest.raises(aoti.InputError, match=r"in 0\.\.8"):
            model(np.ones((9, 4), np.float32))


def test_no_512_bit_register_in_a_portable_package(models, tmp_path):
    if (objdump := shutil.which("objdump")) is None:
        pytest.skip("objdump is not installed")
    for name in ("dummy", "vit"):
        with aoti.Package(models / f"{name}.pt2") as package:
            assert package.threads() is None
            package.extract("model", tmp_path / name)
        (code,) = (tmp_path / name).rglob("*.so")
        command = [objdump, "-d", "--no-show-raw-insn", str(code)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert re.search(r"%ymm\d", text)
        assert not re.search(r"%zmm\d", text)


def test_the_stock_loader_runs_them_too(models):
    program = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
for path, shape in ((sys.argv[1], (3, 3, 16, 16)), (sys.argv[2], (1, 3, 32, 32))):
    result = torch._inductor.aoti_load_package(path)(torch.ones(shape))
    print(*[tuple(t.shape) for t in result] if isinstance(result, tuple) else [result.shape])
"""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        program,
        models / "dummy.pt2",
        models / "vit.pt2",
    ]

    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "(3, 4) (3, 8, 8, 8)"
