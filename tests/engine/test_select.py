"""Which engine runs a model, and what is said where the native one cannot."""

from __future__ import annotations

import zipfile

import pytest

import aoti
from aoti.engine import native
from aoti.engine.select import choose

CPU = aoti.Device("cpu")


@pytest.fixture
def code(packages):
    def code(name: str):
        with aoti.Package(packages / f"{name}.pt2") as package:
            return package.code()

    return code


@pytest.fixture(autouse=True)
def no_wish(monkeypatch):
    monkeypatch.delenv("AOTI_ENGINE", raising=False)


def test_the_native_engine_runs_what_it_has_the_functions_for(code):
    assert choose(code("mlp"), CPU) == choose(code("mlp"), CPU, "native")
    assert choose(code("mlp"), CPU).name == "native"
    assert choose(code("mlp"), CPU, "libtorch").name == "libtorch"


def test_the_environment_is_asked_where_the_caller_does_not_say(code, packages, monkeypatch):
    monkeypatch.setenv("AOTI_ENGINE", "libtorch")
    assert choose(code("mlp"), CPU).name == "libtorch"
    assert choose(code("mlp"), CPU, "native").name == "native"
    monkeypatch.setenv("AOTI_ENGINE", "fastest")
    with pytest.raises(aoti.ConfigError, match="AOTI_ENGINE must be one of 'auto', 'native'"):
        aoti.load(packages / "mlp.pt2")


def test_functions_that_are_missing_are_named(code, packages):
    chosen = choose(code("custom"), CPU)
    assert chosen.name == "libtorch"
    assert "the native engine does not have aoti_torch_" in chosen.why
    with pytest.raises(aoti.IncompatiblePackageError, match="load it with engine='libtorch'"):
        aoti.load(packages / "custom.pt2", engine="native")


def test_constants_that_onednn_has_packed_are_left_to_libtorch():
    """Code with such constants asks for the number of their layout, when it is loaded."""
    assert native.serves("aoti_torch_layout_strided")
    assert not native.serves("aoti_torch_layout__mkldnn")


def test_an_engine_that_is_none_is_refused(packages):
    with pytest.raises(aoti.ConfigError, match="engine must be one of"):
        aoti.load(packages / "mlp.pt2", engine="onnx")


def test_it_runs_on_the_cpu_only(code):
    assert "on the CPU only" in choose(code("mlp"), aoti.Device("cuda")).why
    with pytest.raises(aoti.IncompatiblePackageError, match="on the CPU only, not on cuda"):
        choose(code("mlp"), aoti.Device("cuda"), "native")


def test_without_the_engine_libtorch_runs_all(code, monkeypatch):
    def engine():
        raise aoti.EngineError("aoti has no native engine here")

    monkeypatch.setattr(native, "engine", engine)
    assert choose(code("mlp"), CPU).name == "libtorch"
    with pytest.raises(aoti.EngineError, match="no native engine here"):
        choose(code("mlp"), CPU, "native")


def test_the_model_says_which_engine_runs_it(packages):
    for engine in ("native", "libtorch"):
        with aoti.load(packages / "mlp.pt2", engine=engine) as model:
            assert model.engine == model.info().engine == engine


def test_a_package_without_code_is_refused_as_ever(packages, tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(packages / "mlp.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"" if name.endswith(".so") else old.read(name))
    with pytest.raises(aoti.PackageError):
        aoti.load(path)
