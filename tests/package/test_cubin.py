"""Which GPUs a package's kernels are for, by files as CUDA 13's ptxas and fatbinary write them."""

from __future__ import annotations

import struct

import pytest

from aoti.errors import PackageError
from aoti.package.cubin import Target, read_targets


def cubin(flags: int, abi: int = 7) -> bytes:
    """The head of an ELF file for a GPU."""
    head = b"\x7fELF\x02\x01\x01\x33" + bytes([abi]) + bytes(7) + struct.pack("<HH", 2, 190)
    return head + bytes(28) + struct.pack("<I", flags) + bytes(100)


def fatbin(*entries: tuple[int, int]) -> bytes:
    """A fatbin of (kind, architecture)."""
    body = b""
    for kind, number in entries:
        head = struct.pack("<HHIQ12xI", kind, 0x101, 64, 24, number)
        body += head + bytes(64 - len(head) + 24)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


SM80, SM90, SM90A, SM100 = 0x500550, 0x5A055A, 0x5A0D5A, 0x6006402


@pytest.mark.parametrize(
    ("content", "targets"),
    [
        (cubin(SM80), "sm_80"),
        (cubin(SM90), "sm_90"),
        (cubin(SM90A), "sm_90a"),
        (cubin(SM100, abi=8), "sm_100"),
        (fatbin((2, 90), (1, 90)), "sm_90 compute_90"),
        (fatbin((2, 80), (2, 90), (1, 120)), "sm_80 sm_90 compute_120"),
    ],
)
def test_targets_are_read(tmp_path, content, targets):
    (tmp_path / "k").write_bytes(content)
    assert " ".join(map(str, read_targets(tmp_path / "k"))) == targets


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF",
        b"\x7fELF" + bytes(60),
        b"PTX",
        bytes(64),
        fatbin((2, 90))[:40],
        fatbin((7, 90)),
        fatbin((2, 0)),
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 1 << 60) + bytes(100),
    ],
)
def test_damaged_kernels_are_refused(tmp_path, content):
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(PackageError, match="kernel k is damaged"):
        read_targets(tmp_path / "k")


@pytest.mark.parametrize(
    ("target", "runs", "runs_not"),
    [
        (Target(80), (80, 86, 89), (75, 90, 100)),
        (Target(90), (90,), (89, 100)),
        (Target(90, specific=True), (90,), (89, 100)),
        (Target(80, portable=True), (80, 90, 120), (75,)),
        (Target(100), (100, 103), (90, 120)),
    ],
)
def test_what_runs_where(target, runs, runs_not):
    assert all(target.runs_on(number) for number in runs)
    assert not any(target.runs_on(number) for number in runs_not)
