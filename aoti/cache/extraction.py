"""Extracted models: what an extraction contains, and how it is written.

An extraction is a directory with a model's checked files, as libtorch's loader takes them; with its
weights, if they are not in its code (see aoti.cache.weight_file); and with a manifest, written
last, that lists the files. It is written under another name and renamed into place, so an
extraction is complete unless something else changed it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from aoti.cache import manifest
from aoti.cache.weight_file import TABLE, WEIGHTS, separate
from aoti.errors import PackageError
from aoti.package import layout
from aoti.package.archive import Span
from aoti.package.elf_native import bind
from aoti.package.package import Package

Form = Literal["dir", "zip", "native"]
PARTIAL, OLD = ".partial", ".old"  # no key ends with these


class Modes(NamedTuple):
    """The modes of an extraction's files and directories."""

    directory: int
    file: int

    def apply(self, root: Path) -> None:
        """Set the modes of a directory and of all that is in it."""
        for path in [*root.rglob("*"), root]:
            path.chmod(self.directory if path.is_dir() else self.file)


PRIVATE = Modes(0o700, 0o600)


class Extraction:
    """A user's hold on an extracted model.

    Attributes
    ----------
    path : Path
        The path for libtorch's loader: a directory, or a zip file where it takes no directories.
    directory : Path
        The directory of the extraction.
    weights : Span or None
        Where the weights are, if they are not in the code: in a file of the extraction, or in the
        package itself.
    digest : str
        SHA-256 of the package that it was made from, in hex; empty if it is the package itself.
    origin : str
        The same; but if it is the package itself, what `aoti.unpack` made that from.
    key : str
        The name of the directory: the same for the same content, model and form.
    form : {'dir', 'zip', 'native'}
        What loads the files: see `aoti.cache.cache.extract`.
    """

    def __init__(
        self,
        directory: Path,
        key: Key,
        give_back: Callable[[], object],
        weights: Span | None = None,
    ) -> None:
        self.directory = directory
        self.path = directory / ("model.pt2" if key.form == "zip" else "model")
        self.weights = weights if (directory / TABLE).exists() else None
        if self.weights is None and (own := directory / WEIGHTS).exists():
            self.weights = Span(own, 0, own.stat().st_size)
        self.digest = self.origin = key.digest
        self.key = key.name
        self.form = key.form
        self._made_from = key
        self._give_back = weakref.finalize(self, give_back)
        self._give_back.atexit = False

    def code(self, model: str) -> Path:
        """The directory of a model's code; only if the extraction is not a zip file."""
        return self.path / layout.model_folder(model)

    def entry(self, model: str) -> Path:
        """What the engine loads: the shared object for the native one, else `path`."""
        return layout.find_code(self.code(model)) if self.form == "native" else self.path

    def problem(self) -> str | None:
        """What something changed since it was written: None if every file has its content still.

        Reads all files. A directory that `aoti.unpack` wrote is not ours to judge: always None.
        """
        if not self.digest:
            return None
        return manifest.problem(self.directory, self._made_from, compare=True)

    def release(self) -> None:
        """Give up the hold. May be called twice, and in any thread.

        Never waits, so that the garbage collector can call it anywhere.
        """
        self._give_back()


# The names of extractions: `Key.name`.
NAME = r"[0-9a-f]{64}-(?:dir|zip|native)\+?-[a-z0-9_~-]+"


class Key(NamedTuple):
    """What an extraction is made from. Its content depends on nothing else.

    Attributes
    ----------
    digest : str
        SHA-256 of the package, in hex.
    model : str
        The name of the model.
    form : {'dir', 'zip', 'native'}
        What loads the files: see `aoti.cache.cache.extract`.
    bare : bool
        Whether its weights stay in the package, if the package describes them.
    """

    digest: str
    model: str
    form: Form = "dir"
    bare: bool = False

    @property
    def name(self) -> str:
        """A file name of bounded length, different for every key."""
        # A plain name contains no "~", so no model can pass for another one's hash. No capitals:
        # some file systems ignore case.
        if re.fullmatch(r"[a-z0-9_-]{1,48}", self.model):
            model = self.model
        else:
            from hashlib import sha256  # loads OpenSSL, which most starts do not need

            model = "~" + sha256(os.fsencode(self.model)).hexdigest()[:40]
        return f"{self.digest}-{self.form}{'+' * self.bare}-{model}"


def needed_bytes(package: Package, key: Key) -> int:
    """The disk space that writing an extraction takes at its peak."""
    sizes = package.runtime_files(key.model, weights=not _stays_bare(package, key)).values()
    return sum(sizes) + (max(sizes, default=0) if key.form == "zip" else 0)


def _stays_bare(package: Package, key: Key) -> bool:
    return key.bare and package.model(key.model).constants is not None


def write(
    package: Package,
    key: Key,
    directory: Path,
    *,
    modes: Modes = PRIVATE,
    with_source: bool = False,
) -> None:
    """Write an extraction, completely or not at all. It replaces what is at `directory`.

    Modes do not depend on the umask. The caller keeps others from writing the same extraction. If
    there is one already, it was damaged. Processes may have mapped its files, so it is moved aside
    and never written to.

    Raises
    ------
    PackageError
        The package is damaged, or was changed while it was read.
    OSError
        The file system refuses. Nothing is left behind.
    """
    partial, old = (directory.with_name(directory.name + suffix) for suffix in (PARTIAL, OLD))
    discard(partial)
    discard(old)
    try:
        partial.mkdir(mode=PRIVATE.directory)
        # Other processes rely on the name for a long time. The digest may come from the index, and
        # the package may have changed since. From here on, only what was hashed is read.
        if package.digest != key.digest:
            raise PackageError(f"{package.name} was changed while it was read; load it again")
        package.extract(key.model, partial / "model", weights=not _stays_bare(package, key))
        if key.form == "native":
            bind(layout.find_code(partial / "model" / layout.model_folder(key.model)))
        separate(package, key.model, partial)
        if with_source:
            package.extract_source(key.model, partial / "source")
        if key.form == "zip":
            _pack(partial)
        modes.apply(partial)
        manifest.write(partial, key)
        partial.joinpath(manifest.MANIFEST).chmod(modes.file)
        with contextlib.suppress(FileNotFoundError):
            directory.rename(old)
        partial.rename(directory)
    except BaseException:
        with contextlib.suppress(OSError):
            discard(partial)
        raise
    with contextlib.suppress(OSError):
        discard(old)


def unpacked_form(package: Package) -> Form | None:
    """The form of a directory that `aoti.unpack` wrote; None for any other package."""
    origin = _origin(package)
    return None if origin is None else origin[1]


def _origin(package: Package) -> tuple[str, Form] | None:
    if package.path is None or manifest.MANIFEST not in package.files:
        return None
    return manifest.read_origin(package.path)


def in_place(package: Package, model: str) -> Extraction | None:
    """A directory that `aoti.unpack` wrote, as an extraction; None for any other package."""
    if package.path is None or (origin := _origin(package)) is None:
        return None
    key = Key(origin[0], model, origin[1])
    if not manifest.is_complete(package.path, key):
        raise PackageError(
            f"{package.name} was unpacked by another version of aoti, or is damaged; unpack the "
            "package again"
        )
    found = Extraction(package.path.absolute(), key, lambda: None)
    found.digest = ""  # the files may have changed since it was made
    return found


def discard(path: Path) -> None:
    """Remove a directory, file or link, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _pack(partial: Path) -> None:
    """Pack the files in ``model`` into an archive, and remove each one when it is packed."""
    # A clock that was never set says 1970, which the format cannot store.
    with zipfile.ZipFile(partial / "model.pt2", "x", strict_timestamps=False) as archive:
        for file in sorted((partial / "model").rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(partial))
                if file.name.endswith(layout.METADATA):
                    # libtorch below 2.13 looks for a source, which it does not read, and takes
                    # the metadata with the same name.
                    source = f"{file.name.removesuffix('_metadata.json')}.cpp"
                    archive.writestr(str(file.relative_to(partial).with_name(source)), "")
                file.unlink()
    shutil.rmtree(partial / "model")
