"""Loading: from where, with what options, and what is refused before it could crash."""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import fields
from inspect import cleandoc, signature

import numpy as np
import pytest

import aoti
from aoti.options import DEFAULTS, LoadOptions


def test_a_package_comes_from_a_path_bytes_or_a_file(packages, mlp, rows):
    content = (packages / "mlp.pt2").read_bytes()
    with (packages / "mlp.pt2").open("rb") as file:
        for source in (content, bytearray(content), memoryview(content), file):
            with aoti.load(source) as model:
                assert model(rows).tolist() == mlp(rows).tolist()
        assert not file.closed


def test_an_older_libtorch_gets_an_archive(packages, mlp, rows, monkeypatch):
    monkeypatch.setattr("aoti.engine.libtorch.minor", lambda: (2, 12))
    for cache in (True, False):
        with aoti.load(packages / "mlp.pt2", cache=cache) as model:
            assert model.info().code.suffix == ".pt2"
            assert model(rows).tolist() == mlp(rows).tolist()


def test_a_private_extraction_is_gone_with_its_model(packages, mlp, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with aoti.load(packages / "mlp.pt2", cache=False) as model:
        assert model(rows).tolist() == mlp(rows).tolist()
        assert model.info().entry.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unlinked", "not linked with libtorch"),
        ("custom", r"aoti_tests::halve.* import the Python package that defines it"),
    ],
)
def test_a_package_that_would_crash_is_refused(packages, name, words):
    with pytest.raises(aoti.IncompatiblePackageError, match=words):
        aoti.load(packages / f"{name}.pt2")


@pytest.mark.parametrize("name", ["weights_blob", "weights_mmap", "weights_pickle", "stock"])
def test_weights_are_found_wherever_they_are(packages, mlp, name):
    rows = np.random.default_rng(1).standard_normal((8, 10), dtype=np.float32)
    with aoti.load(packages / f"{name}.pt2") as model:
        assert np.allclose(model(rows), mlp(rows))


@pytest.fixture
def stripped(packages, tmp_path):
    """A package without its generated C++."""
    with zipfile.ZipFile(packages / "stock.pt2") as archive:
        archive.extractall(tmp_path)
    for path in tmp_path.rglob("*.cpp"):
        path.unlink()
    return tmp_path


def test_a_package_that_tells_nothing_warns_and_runs(stripped, mlp, rows):
    with pytest.warns(UserWarning, match="does not describe its inputs"):
        model = aoti.load(stripped)
    with model:
        assert model.inputs is None
        assert np.allclose(model(rows), mlp(rows))


@pytest.mark.parametrize("load", [aoti.load, aoti.AOTIModel.load])
def test_a_warning_points_at_the_callers_line(stripped, load):
    with pytest.warns(UserWarning, match="does not describe its inputs") as caught:
        load(stripped).close()
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("load", [aoti.load, aoti.AOTIModel.load])
def test_the_options_are_those_of_the_dataclass(packages, load):
    spelled = [p for p in signature(load).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in spelled] == [
        (option.name, option.default) for option in fields(LoadOptions)
    ]
    documented = re.findall(r"^(\w+)(?: : .*)?$", cleandoc(aoti.load.__doc__), re.MULTILINE)
    assert [name for name in documented if name in DEFAULTS] == [*DEFAULTS]
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'nonsense'"):
        load(packages / "mlp.pt2", nonsense=1)


def test_the_digest_is_verified_before_anything_is_loaded(packages, rows):
    path = packages / "mlp.pt2"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with aoti.load(path, sha256=digest.upper()) as model:
        assert model(rows).shape == (3, 1)
    with pytest.raises(aoti.IntegrityError, match=f"its SHA-256 is {digest}, not {'0' * 64}"):
        aoti.load(path, sha256="0" * 64)
    with pytest.raises(aoti.ConfigError, match="64 hexadecimal digits"):
        aoti.load(path, sha256="abc")
