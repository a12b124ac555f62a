"""An index of digests, so that a package is not hashed again while its file stays the same.

A file of the index is named after the device and the inode of a package, and contains the identity
of the package's file (see `aoti.package.archive.identity`) and its SHA-256.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path

from aoti.cache.place import others_control
from aoti.package.package import Package

FILES = 1000
_SETTLED = 2 * 10**9  # ns; the coarsest clock of a file system (FAT) ticks that often


def find(package: Package, index: Path) -> str:
    """SHA-256 of a package, in hex: from the index, or computed and added to it.

    Parameters
    ----------
    package : Package
        A package in memory or in a directory is always hashed.
    index : Path
        The directory of the index. It need not exist or be writable.
    """
    before, now = package.identity, time.time_ns()
    if before is None:
        return package.digest
    record = index / f"{before[0]:x}-{before[1]:x}.json"
    usable = _is_ours(index, stat.S_ISDIR) and _is_ours(record, stat.S_ISREG)
    if usable and (known := _recorded(record, before)):
        return known
    found = package.digest
    # A file may change again within a tick of its clock, and its times would not show it.
    settled = now - max(before[3:]) > _SETTLED
    if usable and settled and package.identity == before:
        with contextlib.suppress(OSError):
            index.mkdir(mode=0o700, exist_ok=True)
            # One write of less than a page: readers see all of it or no valid JSON.
            mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(record, mode, 0o600), "w") as file:
                file.write(json.dumps([*before, found]))
    return found


def forget_oldest(index: Path) -> None:
    """Remove the files that were written longest ago, if there are too many."""
    with contextlib.suppress(FileNotFoundError):  # no index yet, or another process was faster
        records = sorted(index.iterdir(), key=lambda path: path.stat().st_mtime)
        for record in records[: max(0, len(records) - FILES)]:
            record.unlink()


def _recorded(record: Path, identity: tuple[int, ...]) -> str | None:
    """The digest in a file of the index, if it belongs to the same file."""
    try:
        *of, known = json.loads(record.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    same = of == [*identity] and isinstance(known, str) and re.fullmatch("[0-9a-f]{64}", known)
    return known if same else None


def _is_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether there is nothing at a path yet, or what should be there, and no one else's."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return is_kind(status.st_mode) and others_control(status) is None
