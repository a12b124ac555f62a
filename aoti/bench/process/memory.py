"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path

_ROLLUP = Path("/proc/self/smaps_rollup")


def private() -> int:
    """Bytes that are not backed by files: heaps, stacks, and written pages of private mappings."""
    return _kilobytes("Anonymous", _ROLLUP.read_text(encoding="ascii"))


def proportional() -> int:
    """Bytes in memory; a page that n processes share counts 1/n for each."""
    return _kilobytes("Pss", _ROLLUP.read_text(encoding="ascii"))


def resident() -> tuple[int, int]:
    """Bytes in memory, including mapped and shared files: now, and the maximum so far."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return _kilobytes("VmRSS", text), _kilobytes("VmHWM", text)


def _kilobytes(key: str, text: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
