"""What stands in an extraction, how it gets there, and the places where extractions may stand.

An extraction is a directory: a model's checked files, as libtorch's loader takes them, beside them
its weights, if they are not in its code (see aoti.cache.weight_file), and a manifest, written last,
that says what was written. It is made under another name and renamed into place, so under its own
name it is whole unless something else meddled with it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import weakref
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from aoti.cache.weight_file import TABLE, WEIGHTS, separate
from aoti.errors import AotiError, ConfigError, PackageError
from aoti.package import layout
from aoti.package.archive import Span
from aoti.package.package import Package

FORMAT = 3
MANIFEST = "manifest.json"
PARTIAL, OLD = ".partial", ".old"  # no key ends like this

_NOT_THE_PLACE = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Extraction:
    """A user's hold on an extracted model.

    Attributes
    ----------
    path : Path
        What libtorch's loader gets: a directory, or a zip file where it knows no directories.
    directory : Path
        The directory that it stands in.
    weights : Span or None
        Where its weights are, if they are not in its code: in a file of the extraction, or in the
        package itself.
    digest : str
        SHA-256 of the package that it was made from, in hex; empty where it is the package itself.
    key : str
        The name of the directory: the same for the same content, model and form.
    """

    def __init__(
        self,
        directory: Path,
        key: Key,
        give_back: Callable[[], object],
        weights: Span | None = None,
    ) -> None:
        self.directory = directory
        self.path = directory / ("model.pt2" if key.as_zip else "model")
        self.weights = weights if (directory / TABLE).exists() else None
        if self.weights is None and (own := directory / WEIGHTS).exists():
            self.weights = Span(own, 0, own.stat().st_size)
        self.digest = key.digest
        self.key = key.name
        self._give_back = weakref.finalize(self, give_back)
        self._give_back.atexit = False

    def code(self, model: str) -> Path:
        """The directory of a model's code in an extraction that is a directory."""
        return self.path / layout.model_folder(model)

    def release(self) -> None:
        """Give it back. Harmless the second time, and in any thread.

        Never waits, so that the garbage collector may call it wherever it happens to run.
        """
        self._give_back()


@dataclass(frozen=True, slots=True)
class Key:
    """What an extraction is made from: nothing else decides what stands in it.

    Attributes
    ----------
    digest : str
        SHA-256 of the package, in hex.
    model : str
        The name of the model.
    as_zip : bool
        Whether its files are packed, for a libtorch that knows no directories.
    bare : bool
        Whether its weights stay in the package, if that describes them.
    """

    digest: str
    model: str
    as_zip: bool
    bare: bool = False

    @property
    def name(self) -> str:
        """A file name of bounded length, one for every key."""
        # "~" stands in no plain name, so no model can pass for another one's hash. No capitals:
        # there are file systems that do not tell them apart.
        plain = re.fullmatch(r"[a-z0-9_-]{1,48}", self.model)
        model = self.model if plain else "~" + sha256(os.fsencode(self.model)).hexdigest()[:40]
        form = ("zip" if self.as_zip else "dir") + ("+" if self.bare else "")
        return f"{self.digest}-{form}-{model}"

    PATTERN = re.compile(r"[0-9a-f]{64}-(?:dir|zip)\+?-[a-z0-9_~-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory for extractions, and the environment variable that moves it elsewhere."""

    path: Path
    variable: str

    def refusal(self, why: str, wanted: str) -> ConfigError:
        """An error that names the place, what is wrong with it, and what helps."""
        return ConfigError(
            f"cannot keep extracted models in {self.path}: {why}; "
            f"set {self.variable} to a directory {wanted}"
        )

    def make(self, *, parents: bool) -> None:
        """Make the directory if it is not there; refuse one that models cannot be loaded from."""
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700, parents=parents)
        self.check()
        if os.statvfs(self.path).f_flag & os.ST_NOEXEC:
            raise self.refusal(
                "its file system is mounted noexec, and models are code",
                "on a file system that code may be run from",
            )

    def check(self) -> None:
        """Refuse a directory that is not there, or that somebody else could write to."""
        status = self.path.lstat()
        ours = "that belongs to you"
        if not stat.S_ISDIR(status.st_mode):
            raise self.refusal("it is not a directory", ours)
        if status.st_uid not in (os.geteuid(), 0):
            raise self.refusal(f"it belongs to another user ({status.st_uid})", ours)
        if status.st_mode & 0o022:
            raise self.refusal("others may write to it (chmod go-w)", ours)

    def missing(self, needed: int) -> int:
        """How many of `needed` bytes there is no room for."""
        status = os.statvfs(self.path)
        return max(0, needed - status.f_bavail * status.f_frsize)

    def too_small(self, missing: int) -> ConfigError:
        """An error for a place with `missing` bytes too little."""
        return self.refusal(f"{missing} bytes more are needed than are free", "with enough room")

    @contextlib.contextmanager
    def named_in_errors(self, package: Package | None = None) -> Iterator[None]:
        """Word what the file system has to say as a ConfigError with the place's name."""
        try:
            yield
        except OSError as error:
            if isinstance(error, AotiError):
                raise
            if package is not None:
                if _is_below(error.filename, package.path):
                    raise
                error.add_note(f"while extracting {package.name} to {self.path}")
            if error.errno in _NOT_THE_PLACE:
                raise
            why = error.strerror or str(error)
            raise self.refusal(why, "with enough room that you can write to") from error


def _is_below(name: object, path: Path | None) -> bool:
    """Whether what the file system complains about belongs to the package."""
    known = path is not None and isinstance(name, (str, os.PathLike))
    return known and Path(name).is_relative_to(path)  # type: ignore[arg-type]


def needed_bytes(package: Package, key: Key) -> int:
    """Room that writing an extraction takes at its peak."""
    sizes = package.runtime_files(key.model, weights=not _stays_bare(package, key)).values()
    return sum(sizes) + (max(sizes, default=0) if key.as_zip else 0)


def _stays_bare(package: Package, key: Key) -> bool:
    return key.bare and package.model(key.model).constants is not None


def write(package: Package, key: Key, directory: Path, *, with_source: bool = False) -> None:
    """Write an extraction, whole or not at all, in the place of whatever stands there.

    The caller keeps others from writing the same one. If one stands there, it is because it was
    damaged; others may have mapped its files, so it is moved aside and never written to.

    Raises
    ------
    PackageError
        The package is damaged, or was changed while it was read.
    OSError
        The file system refuses. Nothing new is left.
    """
    partial, old = (directory.with_name(directory.name + suffix) for suffix in (PARTIAL, OLD))
    discard(partial)
    discard(old)
    try:
        partial.mkdir()
        package.extract(key.model, partial / "model", weights=not _stays_bare(package, key))
        separate(package, key.model, partial)
        if with_source:
            package.extract_source(key.model, partial / "source")
        if key.as_zip:
            _pack(partial)
        # The name says what stands here, to everybody and for long. The digest may come from the
        # index, and the package may have changed since, or just now.
        if package.digest != key.digest:
            raise PackageError(f"{package.name} was changed while it was read; load it again")
        manifest = {"format": FORMAT, "digest": key.digest, "model": key.model}
        (partial / MANIFEST).write_text(json.dumps({**manifest, "files": _sizes(partial)}))
        with contextlib.suppress(FileNotFoundError):
            directory.rename(old)
        partial.rename(directory)
    except BaseException:
        with contextlib.suppress(OSError):
            discard(partial)
        raise
    with contextlib.suppress(OSError):
        discard(old)


def is_whole(directory: Path, key: Key) -> bool:
    """Whether an extraction is there with all its files, going by their sizes."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        files: dict[str, int] = manifest["files"]
        return (
            (manifest["format"], manifest["digest"], manifest["model"])
            == (FORMAT, key.digest, key.model)
        ) and all(_is_file(directory / name, size) for name, size in files.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
        return False


def in_place(package: Package, model: str) -> Extraction | None:
    """The extraction that a directory is that `aoti.unpack` wrote; None for any other package."""
    if package.path is None or MANIFEST not in package.files:
        return None
    try:
        manifest = json.loads((package.path / MANIFEST).read_bytes())
        key = Key(str(manifest["digest"]), model, as_zip=False)
    except (ValueError, TypeError, KeyError) as error:
        raise PackageError(f"{package.name}: its {MANIFEST} is damaged: {error}") from error
    if not is_whole(package.path, key):
        raise PackageError(
            f"{package.name} was unpacked by another aoti, or is damaged: unpack it again"
        )
    found = Extraction(package.path.absolute(), key, lambda: None)
    found.digest = ""  # what the directory was made from says nothing of what is in it now
    return found


def discard(path: Path) -> None:
    """Remove a directory or file, if it is there."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        path.unlink(missing_ok=True)


def _pack(partial: Path) -> None:
    """Turn the files in ``model`` into an archive of the same name; they go as they are packed."""
    # A clock that was never set says 1970, which the format cannot.
    with zipfile.ZipFile(partial / "model.pt2", "x", strict_timestamps=False) as archive:
        for file in sorted((partial / "model").rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(partial))
                file.unlink()
    shutil.rmtree(partial / "model")


def _sizes(directory: Path) -> dict[str, int]:
    return {
        file.relative_to(directory).as_posix(): file.stat().st_size
        for file in directory.rglob("*")
        if file.is_file()
    }


def _is_file(path: Path, size: int) -> bool:
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == size
