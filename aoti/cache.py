"""Extractions: where a package's files stand while its models are loaded.

One directory per content and process, shared by all models loaded from that content and removed
with the last of them, at exit at the latest. It is a private one below the temporary directory
(``TMPDIR``).

The name of an extraction depends on the content alone and is used again after it was removed. That
matters because a model's shared object is never unmapped: the dynamic loader knows it by that name
and maps it once, however often the model is loaded.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import os
import shutil
import tempfile
import threading
import zipfile
from pathlib import Path

from aoti.package import Package


class Extraction:
    """A user's hold on an extracted model.

    Attributes
    ----------
    path : Path
        What libtorch's loader gets: a directory, or a zip file where it knows no directories.
    """

    def __init__(self, store: _Store, key: str, path: Path) -> None:
        self._store = store
        self.key: str | None = key
        self.path = path

    def release(self) -> None:
        """Give it back; the last to do so removes the files. Harmless the second time.

        Never waits, so that the garbage collector may call it wherever it happens to run.
        """
        self._store.release(self)


class _Store:
    """The extractions of one process. A forked child has a store of its own, and never removes
    what its parent uses.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._root: Path | None = None
        self._users: dict[str, int] = {}
        self._released: collections.deque[Extraction] = collections.deque()
        atexit.register(self.clear)

    @property
    def foreign(self) -> bool:
        return self._pid != os.getpid()

    def acquire(self, package: Package, model_name: str, *, as_zip: bool) -> Extraction:
        key = f"{package.digest[:32]}-{'zip' if as_zip else 'dir'}-{model_name}"
        try:
            with self._lock:
                path = self._provide(package, model_name, key, as_zip=as_zip)
        finally:
            self._remove_released()
        return Extraction(self, key, path / "model.pt2" if as_zip else path)

    def _provide(self, package: Package, model_name: str, key: str, *, as_zip: bool) -> Path:
        path = self._make_root() / key
        if key not in self._users or not path.exists():  # something may clean up TMPDIR
            try:
                self._write(package, model_name, path, as_zip=as_zip)
            except BaseException:
                self._remove_if_empty()
                raise
        self._users[key] = self._users.get(key, 0) + 1
        return path

    def release(self, extraction: Extraction) -> None:
        if not self.foreign:
            self._released.append(extraction)
            self._remove_released()

    def _remove_released(self) -> None:
        # Whoever holds the lock comes here after giving it back. It may be this very thread, in the
        # middle of `acquire`, where the garbage collector ended a model: waiting would never end.
        while self._released and self._lock.acquire(blocking=False):
            try:
                while self._released:
                    extraction = self._released.popleft()
                    key, extraction.key = extraction.key, None
                    if key is not None:
                        self._drop(key)
            finally:
                self._lock.release()

    def _drop(self, key: str) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            assert self._root is not None
            shutil.rmtree(self._root / key, ignore_errors=True)
            self._remove_if_empty()

    def clear(self) -> None:
        """Remove everything; at exit."""
        if not self.foreign and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _make_root(self) -> Path:
        if self._root is not None:
            # The name is kept for the sake of the dynamic loader, unless somebody else took it.
            with contextlib.suppress(FileExistsError):
                self._root.mkdir(mode=0o700)
                return self._root
            if self._users:
                return self._root
        self._root = Path(tempfile.mkdtemp(prefix="aoti-"))
        return self._root

    def _remove_if_empty(self) -> None:
        if not self._users and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _write(self, package: Package, model_name: str, path: Path, *, as_zip: bool) -> None:
        """Write an extraction under another name, and rename it once it is whole."""
        partial = path.with_name(f"partial-{path.name}")  # no other key begins like this
        try:
            package.extract(model_name, partial)
            if as_zip:
                files = [file for file in sorted(partial.rglob("*")) if file.is_file()]
                # A clock that was never set says 1970, which the format cannot.
                with zipfile.ZipFile(
                    partial / "model.pt2", "x", strict_timestamps=False
                ) as archive:
                    for file in files:
                        archive.write(file, Path("model") / file.relative_to(partial))
                shutil.rmtree(partial / "data")
            partial.rename(path)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                error.add_note(f"while extracting {package.name} to {path}; TMPDIR says where")
            raise


_store = _Store()


def extract(package: Package, model_name: str, *, as_zip: bool) -> Extraction:
    """Extract a model, or share the extraction that this process has of it already.

    Safe to call from several threads. `as_zip` is for libtorch below 2.13, whose loader takes no
    directory: it gets a zip file of the same checked entries.
    """
    global _store  # noqa: PLW0603
    if _store.foreign:
        _store = _Store()
    return _store.acquire(package, model_name, as_zip=as_zip)
