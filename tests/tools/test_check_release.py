"""What a release must hold."""

from __future__ import annotations

import pytest

import aoti

pytest.importorskip("packaging")
V = aoti.__version__
NAMES = [
    f"aoti_runtime-{V}.tar.gz",
    f"aoti_runtime-{V}-cp311-abi3-manylinux_2_28_x86_64.whl",
    f"aoti_runtime-{V}-cp311-abi3-manylinux_2_28_aarch64.whl",
    f"aoti_runtime-{V}+cu130-cp311-abi3-manylinux_2_28_x86_64.whl",
    "aoti_libtorch_cpu-2.13.0-py3-none-manylinux_2_28_x86_64.whl",
]
NO_ENTRY = f"CHANGELOG.md has no entry for {V}"


@pytest.fixture
def findings(tool, tmp_path):
    """What is found in a directory of empty files."""

    def findings(names=NAMES, tag=f"v{V}") -> list[str]:
        (tmp_path / "dist").mkdir()
        for name in names:
            (tmp_path / "dist" / name).touch()
        # Until the release is made, the changelog has no entry for it.
        said = tool("check_release", tag, tmp_path / "dist", check=None)
        return [line for line in said.splitlines() if line != NO_ENTRY]

    return findings


def test_a_complete_release_passes(findings):
    assert findings() == []


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (0, f"not one sdist of {V}: "),
        (1, "no wheel of aoti-runtime for x86_64"),
        (2, "no wheel of aoti-runtime for aarch64"),
        (4, "no wheel of aoti-libtorch-cpu"),
    ],
)
def test_what_is_missing_is_named(findings, missing, said):
    assert findings([name for name in NAMES if name != NAMES[missing]]) == [said]


def test_another_version_and_strangers_are_named(findings):
    wheel = "aoti_runtime-9.9-cp311-abi3-manylinux_2_28_x86_64.whl"
    found = findings([*NAMES, wheel, "notes.txt"], tag="v9.9")
    assert f"the tag is v9.9, but aoti.__version__ is {V}" in found
    assert "a wheel of aoti-runtime 9.9" in found
    assert "notes.txt does not belong there" in found
