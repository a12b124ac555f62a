"""The array core as a library: complete without libtorch, and all its modules in one object."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

import aoti

MODULES = sorted(path.stem for path in Path(aoti.__file__).parent.glob("engine/_core/*.pyx"))
CORE = importlib.util.find_spec("aoti.engine._core._program").origin


def readelf(option: str) -> list[str]:
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    command = ["readelf", "--wide", option, CORE]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_it_needs_no_libtorch():
    needed = [line.split("[")[1][:-1] for line in readelf("--dynamic") if "(NEEDED)" in line]
    assert "libc.so.6" in needed
    assert not [name for name in needed if "torch" in name or "c10" in name or "gomp" in name]


def test_it_asks_for_no_symbol_of_libtorch():
    lines = [line.split() for line in readelf("--dyn-syms")]
    names = [words[7] for words in lines if len(words) > 7 and words[6] == "UND"]
    assert "PyErr_NoMemory" in names
    assert not [name for name in names if "aoti_torch" in name or "c10" in name or "2at" in name]


@pytest.mark.skipif(not MODULES, reason="needs the sources")
def test_all_modules_are_in_one_object_and_load_without_libtorch(run_python):
    run_python("""
import importlib, sys
sys.modules["torch"] = None
found = [importlib.import_module(f"aoti.engine._core.{name}") for name in sys.argv[1:]]
maps = open("/proc/self/maps").read()
assert not any(name in maps for name in ("libtorch", "libc10", "libgomp"))
assert len({module.__file__ for module in found}) == 1
assert found[0].__file__ in maps
from aoti.engine._core._program import Program
assert Program.__module__ == "aoti.engine._core._program"
""", *MODULES, LIBTORCH="/nowhere")  # fmt: skip


@pytest.mark.skipif(not MODULES, reason="needs the sources")
def test_it_exports_its_modules(released):
    lines = [line.split() for line in readelf("--dyn-syms")]
    exported = {w[7] for w in lines if len(w) > 7 and w[4] == "GLOBAL" and w[6].isdigit()}
    assert exported == {f"PyInit_{name}" for name in MODULES}


@pytest.fixture
def released():
    builds = aoti.build_info()["builds"]
    if not builds or any(build["debug"] or build["sanitize"] for build in builds):
        pytest.skip("a build for debugging exports all it has")
