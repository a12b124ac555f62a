"""Unpacked models: directories that are loaded where they stand."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti.cli.group import run


@pytest.mark.parametrize("name", ["weights_blob", "weights_pickle", "stock"])
def test_an_unpacked_model_loads_without_an_extraction(packages, mlp, place, tmp_path, name):
    directory = aoti.unpack(packages / f"{name}.pt2", tmp_path / "to/model")
    assert [path.name for path in directory.parent.iterdir()] == ["model"]
    with aoti.Package(directory) as unpacked, aoti.Package(packages / f"{name}.pt2") as package:
        assert unpacked.models == package.models
        assert unpacked.metadata() == package.metadata()
        assert unpacked.signature() == package.signature()
    x = np.random.default_rng(1).standard_normal((8, 10), dtype=np.float32)
    with aoti.load(directory) as model:
        assert np.allclose(model(x), mlp(x))
        maps = Path("/proc/self/maps").read_text()
        assert f"{directory}/model/data/aotinductor/model/" in maps
        assert (f"{directory}/weights.bin" in maps) == name.startswith("weights")
        with pickle.loads(pickle.dumps(model)) as again:
            assert again.path == str(directory)
    assert not place.exists()


def test_files_of_an_unpacked_model_are_read_only(packages, tmp_path):
    directory = aoti.unpack(packages / "mlp.pt2", tmp_path / "model")
    assert {p.stat().st_mode & 0o777 for p in directory.rglob("*") if p.is_file()} == {0o444}


def test_nothing_is_written_over(packages, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(aoti.ConfigError, match="exists already"):
        aoti.unpack(packages / "mlp.pt2", tmp_path / "model")
    (tmp_path / "bad.pt2").write_bytes((packages / "mlp.pt2").read_bytes()[:1000])
    with pytest.raises(aoti.PackageError):
        aoti.unpack(tmp_path / "bad.pt2", tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "bad.pt2"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: (d / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda d: (d / "manifest.json").write_text("{}"), "manifest.json is damaged"),
        (lambda d: (d / "weights.bin").write_bytes(b"short"), "damaged; unpack the package again"),
        (lambda d: (d / "weights.bin").unlink(), "damaged; unpack the package again"),
        (lambda d: shutil.rmtree(d / "model"), "it holds|damaged|stripped|no metadata|source code"),
    ],
)
def test_a_damaged_directory_is_refused(packages, tmp_path, damage, words):
    directory = aoti.unpack(packages / "weights_blob.pt2", tmp_path / "model")
    for file in directory.rglob("*"):
        file.chmod(0o755)
    damage(directory)
    with pytest.raises(aoti.PackageError, match=words):
        aoti.load(directory)


def test_its_digest_is_verified_if_asked(packages, tmp_path):
    directory = aoti.unpack(packages / "mlp.pt2", tmp_path / "model")
    with aoti.Package(directory) as package:
        digest = package.digest
    aoti.load(directory, sha256=digest).close()
    with pytest.raises(aoti.IntegrityError):
        aoti.load(directory, sha256="0" * 64)


def test_an_older_libtorch_does_not_take_it(packages, tmp_path, monkeypatch):
    directory = aoti.unpack(packages / "mlp.pt2", tmp_path / "model", engine="libtorch")
    monkeypatch.setattr("aoti.engine.libtorch.minor", lambda: (2, 12))
    with pytest.raises(aoti.IncompatiblePackageError, match=r"since 2\.13"):
        aoti.load(directory)


def test_the_command(packages, tmp_path, capsys):
    assert run(["unpack", str(packages / "mlp.pt2"), str(tmp_path / "model"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["directory"] == str(tmp_path / "model") and said["bytes"] > 1 << 18
    assert run(["unpack", str(packages / "mlp.pt2"), str(tmp_path / "other")]) == 0
    assert "MB" in capsys.readouterr().out
    assert run(["check", str(tmp_path / "model")]) == 0
    assert run(["info", str(tmp_path / "model")]) == 0
    assert run(["unpack", str(packages / "mlp.pt2"), str(tmp_path / "model")]) == 2
