"""The repair step: the tag is written, and nothing else is touched."""

from __future__ import annotations

import platform
import zipfile

import pytest

pytest.importorskip("auditwheel")
ENGINE = "aoti/engine/_libtorch/torch213/_libtorch.abi3.so"
CORE = "aoti/engine/_core/_core.abi3.so"
TAG = f"cp311-abi3-linux_{platform.machine()}"


@pytest.fixture
def unrepaired(link, wheel, tmp_path):
    """A wheel whose library needs a libtorch_cpu that is not in it."""

    def unrepaired(needed: str = "libtorch_cpu.so"):
        stub = link(tmp_path / "stubs" / needed, soname=needed, code="int it;")
        engine = tmp_path / "tree" / ENGINE
        link(engine, "-Wl,--no-as-needed", stub, code="int PyInit__libtorch;")
        link(tmp_path / "tree" / CORE, code="int PyInit__program;")
        return wheel(tmp_path / "tree", f"aoti_runtime-1.0-{TAG}")

    return unrepaired


def test_the_tag_is_the_policy_and_the_libraries_are_as_they_were(tool, unrepaired, tmp_path):
    before = unrepaired()
    tool("repair_wheel", "-w", tmp_path / "out", before)
    (after,) = (tmp_path / "out").iterdir()
    assert after.name == f"aoti_runtime-1.0-cp311-abi3-manylinux_2_28_{platform.machine()}.whl"
    with zipfile.ZipFile(before) as one, zipfile.ZipFile(after) as other:
        for name in (ENGINE, CORE):
            assert one.read(name) == other.read(name)
        assert set(one.namelist()) == {n for n in other.namelist() if not n.endswith("/")}


def test_a_library_that_would_be_grafted_is_refused(tool, unrepaired, tmp_path):
    path = str(tmp_path / "stubs")
    said = tool("repair_wheel", "-w", tmp_path / "out", unrepaired("libelse.so"), check=False,
                LD_LIBRARY_PATH=path)  # fmt: skip
    assert "changed or added a library" in said
    assert not (tmp_path / "out").exists()
