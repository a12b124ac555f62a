"""The provider's tree, and the wheel that comes out of it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest

for name in ("cyclonedx", "hatchling", "deflate", "stream_zip", "elftools", "auditwheel"):
    pytest.importorskip(name)


def test_the_wheel_made_of_it_passes_the_check(tool, torch, tmp_path):
    (torch().parent / "torch/lib/libtorch_python.so").touch()
    tool("provider_tree", tmp_path / "site/torch", tmp_path / "tree")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "out"]
    subprocess.run(command, cwd=tmp_path / "tree", check=True, capture_output=True)
    (wheel,) = (tmp_path / "out").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        before = {name: archive.read(name) for name in archive.namelist()}
    tool("recompress_wheel", wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == before
    tool("check_wheel", wheel)
    libraries = {name for name in before if name.startswith("aoti_libtorch/lib/")}
    names = {"libc10.so", "libtorch_cpu.so", "libgomp.so.1"}
    assert libraries == {f"aoti_libtorch/lib/{name}" for name in names}
    assert before["aoti_libtorch/build-version"] == b"2.13.0\n"
    (sbom,) = (json.loads(text) for name, text in before.items() if "/sboms/" in name)
    assert {"torch", "fmt", "oneMKL", "libgomp"} <= {part["name"] for part in sbom["components"]}
    (source,) = (text for name, text in before.items() if name.endswith("libgomp/SOURCE"))
    assert b"gcc-8.5.0-28.el8" in source


@pytest.mark.parametrize(
    ("version", "libraries"),
    [("2.13.0+cu130", ("libtorch_cpu.so", "libtorch_cuda.so")), ("2.13.0", ())],
)
def test_what_is_no_cpu_build_is_refused_and_leaves_nothing(
    tool, torch, tmp_path, version, libraries
):
    said = tool("provider_tree", torch(version, libraries), tmp_path / "out/tree", check=False)
    assert ("is not a CPU build" if libraries else "no torch with libraries") in said
    assert not list((tmp_path / "out").iterdir())


def test_other_licences_than_stated_are_refused(tool, torch, tmp_path):
    source = torch()
    (metadata,) = source.parent.glob("*.dist-info/METADATA")
    metadata.write_text("Name: torch\nLicense-Expression: GPL-2.0-only\n")
    said = tool("provider_tree", source, tmp_path / "out/tree", check=False)
    assert "does not begin with torch's: GPL-2.0-only" in said
