"""Whether the kernels of a package run on a GPU."""

from __future__ import annotations

import struct

from aoti.compat.gpu_kernels import check_kernels


def cubin(number: int) -> bytes:
    """The head of an ELF file for a GPU."""
    head = b"\x7fELF\x02\x01\x01\x33\x07" + bytes(7) + struct.pack("<HH", 2, 190)
    return head + bytes(28) + struct.pack("<I", number << 16 | 0x500 | number) + bytes(100)


def fatbin(*kinds: int, number: int) -> bytes:
    """A fatbin with entries of these kinds: 1 is portable, 2 is not."""
    body = b"".join(struct.pack("<HHIQ12xI56x", k, 0x101, 64, 24, number) for k in kinds)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_a_model_runs_where_all_its_kernels_do(tmp_path):
    assert check_kernels(tmp_path, "sm_90").ok
    (tmp_path / "a.cubin").write_bytes(cubin(90))
    (tmp_path / "b.fatbin").write_bytes(fatbin(2, 1, number=80))
    found = check_kernels(tmp_path, "sm_90")
    assert (found.ok, found.message) == (
        True, "the package's kernels are for compute_80, sm_80, sm_90"
    )  # fmt: skip
    found = check_kernels(tmp_path, "sm_100")
    assert not found.ok
    assert "none of a.cubin runs on sm_100" in found.message
    assert "emit_multi_arch_kernel=True" in str(found)
    (tmp_path / "c.cubin").write_bytes(b"")
    assert "c.cubin is damaged" in check_kernels(tmp_path, "sm_90").message
