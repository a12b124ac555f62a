"""The libraries of a GPU backend: which are loaded, from where, and what is said if that fails."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import aoti
from aoti.engine import backend as module
from aoti.engine.backend import load_libraries, runtime_of, toolkit
from aoti.engine.libtorch_files import BACKEND_LIBRARIES, Libtorch

VARIABLES = ("CUDA_HOME", "CUDA_PATH", "ROCM_PATH")


@pytest.fixture(autouse=True)
def no_toolkits(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        module, "TOOLKITS", {b: (v, "/nowhere") for b, (v, _) in module.TOOLKITS.items()}
    )


@pytest.fixture
def library(tmp_path):
    """Compile an empty library that needs others; give its path."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")

    def library(path: Path, *needs: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-shared", f"-Wl,-soname,{path.name}", "-Wl,--no-as-needed", "-xc"]
        command += ["/dev/null", "-o", str(path), "-xnone", *map(str, needs)]
        subprocess.run(command, check=True)
        return path

    return library


def loaded() -> list[str]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line.split(maxsplit=5)[-1].strip() for line in maps]


@pytest.mark.parametrize("backend", ["cuda", "rocm"])
def test_libraries_are_loaded_from_where_they_stand(tmp_path, library, backend):
    """Those of ROCm look for their data beside themselves."""
    tree = tmp_path / f"real-{backend}"
    names = BACKEND_LIBRARIES[backend]
    for name in names:
        library(tree / name)
        (tmp_path / "torch/lib").mkdir(parents=True, exist_ok=True)
        (tmp_path / "torch/lib" / name).symlink_to(tree / name)
    load_libraries(Libtorch(tmp_path / "torch/lib", "2.14.1", backend, "a test's"), backend)
    assert {str(tree / name) for name in names} <= set(loaded())


@pytest.mark.parametrize("variable", VARIABLES)
def test_what_is_missing_is_looked_for_in_the_toolkit(tmp_path, library, monkeypatch, variable):
    backend = "rocm" if variable == "ROCM_PATH" else "cuda"
    names = BACKEND_LIBRARIES[backend]
    root, lib = tmp_path / f"toolkit-{variable}", tmp_path / "torch/lib"
    deep = library(root / f"lib/libdeep-{variable}.so.7")
    needed = library(root / f"lib64/libneeded-{variable}.so.7", deep)
    other = library(root / f"lib/libother-{variable}.so.7")
    library(lib / names[0])
    library(lib / names[1], needed, other)
    torch = Libtorch(lib, "2.14.1", backend, "a test's")
    with pytest.raises(aoti.LibtorchError) as caught:
        load_libraries(torch, backend)
    assert f"libneeded-{variable}.so.7" in str(caught.value)
    assert variable in str(caught.value)
    monkeypatch.setenv(variable, str(root))
    load_libraries(torch, backend)
    assert {str(deep), str(needed), str(other)} <= set(loaded())


def test_a_toolkit_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    assert toolkit("cuda", {}) is None
    assert toolkit("cpu", {"CUDA_HOME": "/nowhere"}) is None
    assert toolkit("cuda", {"CUDA_PATH": str(tmp_path)}) == tmp_path
    assert toolkit("rocm", {"ROCM_PATH": str(tmp_path), "CUDA_HOME": "/nowhere"}) == tmp_path
    with pytest.raises(aoti.LibtorchError, match="CUDA_HOME=/nowhere is not a directory; correct"):
        toolkit("cuda", {"CUDA_HOME": "/nowhere"})
    monkeypatch.setitem(module.TOOLKITS, "cuda", (("CUDA_HOME",), str(tmp_path)))
    assert toolkit("cuda", {}) == tmp_path


@pytest.mark.parametrize(
    ("libtorch", "words"),
    [
        ("cpu", ("for the CPU", "install a torch for CUDA or ROCm", "AOTI_BACKEND=cuda or rocm")),
        ("cuda", ("for the CPU", "the wheel for CUDA", "AOTI_BACKEND=cuda pip install")),
        ("rocm", ("for the CPU", "the wheel for ROCm", "AOTI_BACKEND=rocm pip install")),
    ],
)
def test_a_build_for_the_cpu_says_what_to_do(tmp_path, libtorch, words):
    with pytest.raises(aoti.LibtorchError) as caught:
        load_libraries(Libtorch(tmp_path, "2.14.1", libtorch, "a test's"), "cpu")
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "runtime"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "CUDA 13.0"),
        ("cuda = '12.8'\n", "CUDA 12.8"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '7.1.25424'\n", "ROCm 7.1.25424"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", None),
        (None, None),
    ],
)
def test_what_a_libtorch_was_built_for_is_read(tmp_path, text, runtime):
    if text is not None:
        (tmp_path / "version.py").write_text(text)
    assert runtime_of(Libtorch(tmp_path / "lib", None, "cuda", "a test's")) == runtime
