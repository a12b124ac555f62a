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
        self._store: _Store | None = store
        self._key = key
        self.path = path

    def release(self) -> None:
        """Give it back; the last to do so removes the files. Harmless the second time."""
        store, self._store = self._store, None
        if store is not None:
            store.release(self._key)


class _Store:
    """The extractions of one process. A forked child has a store of its own, and never removes
    what its parent uses.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._root: Path | None = None
        self._users: dict[str, int] = {}
        atexit.register(self.clear)

    @property
    def foreign(self) -> bool:
        return self._pid != os.getpid()

    def acquire(self, package: Package, model_name: str, *, as_zip: bool) -> Extraction:
        key = f"{package.digest[:32]}-{model_name}{'-zip' if as_zip else ''}"
        with self._lock:
            self._make_root()
            assert self._root is not None
            path = self._root / key
            if key not in self._users:
                try:
                    self._write(package, model_name, path, as_zip=as_zip)
                except BaseException:
                    self._remove_if_empty()
                    raise
            self._users[key] = self._users.get(key, 0) + 1
        return Extraction(self, key, path / "model.pt2" if as_zip else path)

    def release(self, key: str) -> None:
        if self.foreign:
            return
        with self._lock:
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

    def _make_root(self) -> None:
        if self._root is not None:
            # The name is kept for the sake of the dynamic loader, unless somebody else took it.
            with contextlib.suppress(FileExistsError):
                self._root.mkdir(mode=0o700)
                return
            if self._users:
                return
        self._root = Path(tempfile.mkdtemp(prefix="aoti-"))

    def _remove_if_empty(self) -> None:
        if not self._users and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _write(self, package: Package, model_name: str, path: Path, *, as_zip: bool) -> None:
        """Write an extraction under another name, and rename it once it is whole."""
        partial = path.with_name(path.name + ".partial")
        try:
            package.extract(model_name, partial)
            if as_zip:
                files = [file for file in sorted(partial.rglob("*")) if file.is_file()]
                with zipfile.ZipFile(partial / "model.pt2", "x", zipfile.ZIP_STORED) as archive:
                    for file in files:
                        archive.write(file, Path("model") / file.relative_to(partial))
                shutil.rmtree(partial / "data")
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
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
