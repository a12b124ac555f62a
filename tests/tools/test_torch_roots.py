"""What the engine is compiled against, made from what there is of a torch."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from aoti.engine.libtorch_files import Libtorch
from aoti.package.elf import read_elf


@pytest.mark.parametrize("packed", [False, True])
def test_a_root_has_headers_a_version_and_libraries_that_are_empty(tool, torch, tmp_path, packed):
    source = torch(libraries=("libtorch_cpu.so", "libtorch_python.so"))
    if packed:
        wheel = tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path in source.rglob("*.*"):
                archive.write(path, f"torch/{path.relative_to(source)}")
        source = wheel
    root = Path(tool("torch_roots", "--out", tmp_path / "roots", source).strip())
    assert root == tmp_path / "roots/2.13.0+cpu"
    found = Libtorch.read(root, "made")
    assert (found.version, found.backend, found.present) == ("2.13.0+cpu", "cpu", True)
    assert (root / "include/ATen/ATen.h").read_text() == "// headers\n"
    assert {path.name for path in found.lib.iterdir()} == {"libc10.so", "libtorch_cpu.so"}
    for path in found.lib.iterdir():
        assert not read_elf(path).defined
        said = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
        assert f"Library soname: [{path.name}]" in said.stdout
    assert [path.name for path in root.parent.iterdir()] == [root.name]


def test_libgomp_is_the_real_one_and_says_where_its_source_is(tool, torch, tmp_path):
    root = Path(tool("torch_roots", "--out", tmp_path / "roots", torch()).strip())
    assert read_elf(root / "openmp/libgomp.so.1").defined.keys() == {"gomp"}
    said = subprocess.run(
        ["readelf", "-SdW", root / "openmp/libgomp.so.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ".symtab" not in said.stdout
    assert "$ORIGIN" not in said.stdout
    source = (root / "openmp/libgomp.txt").read_text()
    assert "torch 2.13.0+cpu" in source
    assert "source package gcc-8.5.0-28.el8" in source


def test_the_backend_is_told_by_the_stubs_too(tool, torch, tmp_path):
    source = torch("2.13.0+cu130", ("libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so"))
    root = Path(tool("torch_roots", "--out", tmp_path / "roots", source).strip())
    assert Libtorch.read(root, "made").backend == "cuda"


def test_what_is_there_is_left_alone_and_roots_are_joined(tool, torch, tmp_path):
    source = torch()
    there = tmp_path / "roots/2.14.1"
    there.mkdir(parents=True)
    said = tool("torch_roots", "--out", tmp_path / "roots", source, "2.14.1")
    assert said == f"{tmp_path}/roots/2.13.0+cpu:{there}\n"
    assert not list(there.iterdir())


def test_a_torch_without_headers_is_refused_and_leaves_nothing(tool, torch, tmp_path):
    source = torch()
    (source / "include/ATen/ATen.h").unlink()
    (source / "include/ATen").rmdir()
    said = tool("torch_roots", "--out", tmp_path / "roots", source, check=False)
    assert f"{source} is not a torch with headers" in said
    assert not list((tmp_path / "roots").iterdir())
