"""Private extractions: one directory per process, below the temporary directory.

All models of the process share it, and it is removed with the last of them, at exit at the latest.
If the process is killed, the next process that extracts anything removes it: beside the directory
is a file that its owner keeps locked until it ends.

The name of an extraction is used again after its removal, because a model's shared object is never
unmapped: the dynamic loader identifies it by that name and maps it once, however often the model is
loaded.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import os
import shutil
import threading
from functools import partial
from pathlib import Path

from aoti.cache import filelock, manifest
from aoti.cache.extraction import Extraction, Key, needed_bytes, write
from aoti.cache.place import Place
from aoti.errors import ConfigError
from aoti.package.archive import Span
from aoti.package.package import Package

swept: set[Path] = set()
_ATTEMPTS = 100  # in /proc, no directory can be made, and the error is that of a lost race


def extract(
    package: Package, key: Key, weights: Span | None = None, *, compare: bool = False
) -> Extraction:
    """Extract a model, or share the private extraction that this process has already.

    Safe to call from several threads, which wait for each other. `compare` is that of
    `aoti.cache.manifest.problem`.
    """
    global _store  # noqa: PLW0603
    if _store.foreign:
        _store = _Store()
    return _store.acquire(package, key, weights, compare=compare)


def sweep() -> None:
    """Remove what killed processes left in the temporary directory; once per process."""
    with contextlib.suppress(OSError, ConfigError):  # then there is nothing to remove
        place = _place()
        if place.path in swept:
            return
        swept.add(place.path)
        place.check()
        for file in place.path.glob("*.lock"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                guard = filelock.lock(file, exclusive=True, wait=False, create=False)
                if guard is not None:
                    shutil.rmtree(file.with_suffix(""), ignore_errors=True)
                    guard.remove()
        place.path.rmdir()


def _place() -> Place:
    # Not gettempdir(): it silently uses another directory if this one is unusable.
    return Place(
        Path(os.environ.get("TMPDIR") or "/tmp").absolute() / f"aoti-{os.geteuid()}", "TMPDIR"
    )


class _Store:
    """The private extractions of one process.

    A forked child gets its own store, and never removes what its parent uses.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._place: Place
        self._root: Path | None = None
        self._guard: filelock.FileLock | None = None
        self._users: collections.Counter[Key] = collections.Counter()
        self._released: collections.deque[Key] = collections.deque()
        atexit.register(self.clear)

    @property
    def foreign(self) -> bool:
        return self._pid != os.getpid()

    def acquire(
        self, package: Package, key: Key, weights: Span | None, *, compare: bool
    ) -> Extraction:
        try:
            with self._lock:
                if not self._users:  # otherwise it stays, even if TMPDIR has changed
                    self._place = _place()
                try:
                    with self._place.named_in_errors(package):
                        directory = self._provide(package, key, compare=compare)
                    self._users[key] += 1
                finally:
                    self._remove_if_empty()
        finally:
            self._remove_released()
        return Extraction(directory, key, partial(self._give_back, key), weights)

    def _provide(self, package: Package, key: Key, *, compare: bool) -> Path:
        directory = self._make_root() / key.name
        # Something may have cleaned up TMPDIR.
        if manifest.problem(directory, key, compare=compare):
            if missing := self._place.missing(needed_bytes(package, key)):
                raise self._place.too_small(missing)
            write(package, key, directory)
        return directory

    def _give_back(self, key: Key) -> None:
        if not self.foreign:
            self._released.append(key)
            self._remove_released()

    def _remove_released(self) -> None:
        # Every holder of the lock calls this after releasing it. The holder may be this very
        # thread, if the garbage collector freed a model during `acquire`: waiting would be a
        # deadlock.
        while self._released and self._lock.acquire(blocking=False):
            try:
                while self._released:
                    key = self._released.popleft()
                    self._users[key] -= 1
                    if not self._users[key]:
                        del self._users[key]
                        assert self._root is not None
                        shutil.rmtree(self._root / key.name, ignore_errors=True)
                        self._remove_if_empty()
            finally:
                self._lock.release()

    def clear(self) -> None:
        """Remove everything; at exit."""
        if not self.foreign and self._guard is not None and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._guard.remove()
            self._guard = None
            with contextlib.suppress(OSError):  # other processes have directories in it
                self._root.parent.rmdir()

    def _remove_if_empty(self) -> None:
        if not self._users:
            self.clear()

    def _make_root(self) -> Path:
        if self._root is None or self._root.parent != self._place.path:
            self._root = self._place.path / os.urandom(8).hex()
        # A process that removes unused directories may be faster than this lock.
        for attempt in range(_ATTEMPTS):
            if self._guard is not None and self._guard.in_place():
                break
            try:
                self._place.make(parents=False)
                file = self._root.with_suffix(".lock")
                self._guard = filelock.lock(file, exclusive=True)
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1 or not self._place.path.parent.is_dir():
                    raise
        self._root.mkdir(mode=0o700, exist_ok=True)
        return self._root


_store = _Store()
