"""Locks between processes that end with their holder, even if it is killed (``flock(2)``).

A lock belongs to an open file, and the kernel drops it with the last descriptor of that file. So
nobody ever has to guess whether a process is still there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path


class FileLock:
    """A lock that is held, until `release`, `remove` or the end of this object or process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self._close.atexit = False  # the kernel does it, once nothing of this process runs

    def in_place(self) -> bool:
        """Whether the locked file still is the one that others find at its path."""
        return _is_at(self._descriptor, self.path)

    def release(self) -> None:
        """Let go. Harmless the second time, and in any thread; never waits.

        A forked child that inherited the descriptor keeps the lock.
        """
        self._close()

    def remove(self) -> None:
        """Delete the file and let go. Whoever waits for it notices, and makes a new one."""
        with contextlib.suppress(OSError):
            if self.in_place():
                self.path.unlink()
        # By name: a child may have inherited the descriptor, and would keep others waiting.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._close()


def lock(path: Path, *, exclusive: bool, wait: bool = True, create: bool = True) -> FileLock | None:
    """Lock a file. None if that means waiting and `wait` is False.

    Waiting is done without the GIL and ends with a signal whose handler raises, such as Ctrl-C.
    Two locks of one process exclude each other like those of two processes.

    A shared lock works on a file that can only be read, and does not create one. An exclusive lock
    needs a file that can be written to, which is what NFS asks for.

    Raises
    ------
    OSError
        There is no such file and none is to be created, or the file system does not let us.
    """
    flags = os.O_RDWR | (os.O_CREAT if create else 0) if exclusive else os.O_RDONLY
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        held = FileLock(path, descriptor)
        try:
            fcntl.flock(descriptor, operation if wait else operation | fcntl.LOCK_NB)
        except BlockingIOError:
            held.release()
            return None
        if held.in_place():
            return held
        held.release()  # whoever had it removed it: what we hold excludes nobody


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
