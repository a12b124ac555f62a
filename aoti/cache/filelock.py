"""File locks between processes (``flock(2)``).

A lock belongs to an open file, and the kernel drops it with the last descriptor of that file, even
if the process is killed. So nothing has to guess whether a holder is still alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path


class FileLock:
    """A lock. It is held until `release`, `remove` or the end of this object or process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self._close.atexit = False  # the kernel closes it at the end of the process

    def in_place(self) -> bool:
        """Whether the locked file is still the one at its path."""
        return _is_at(self._descriptor, self.path)

    def release(self) -> None:
        """Release the lock. May be called twice, and in any thread; never waits.

        A forked child that inherited the descriptor keeps the lock.
        """
        self._close()

    def remove(self) -> None:
        """Delete the file and release the lock. A process that waits for it creates a new file."""
        with contextlib.suppress(OSError):
            if self.in_place():
                self.path.unlink()
        # Explicitly: a child may have inherited the descriptor, and would keep the lock.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._close()


def lock(path: Path, *, exclusive: bool, wait: bool = True, create: bool = True) -> FileLock | None:
    """Lock a file. None if the lock is taken and `wait` is False.

    It waits without the GIL. A signal whose handler raises, such as Ctrl-C, ends the wait.
    Two locks of one process exclude each other like those of two processes.

    A shared lock works on a read-only file, and does not create a file. An exclusive lock needs a
    writable file, as NFS requires.

    Raises
    ------
    OSError
        The file does not exist and must not be created, or the file system refuses.
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
        held.release()  # the last holder removed the file, so this lock excludes no one


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
