"""The list of an extraction's files, which shows whether anything changed them since.

``manifest.json`` has the size of each file, its SHA-256, and when the file system last changed it
(its ctime, in ns). The kernel alone sets that time. Writes, renames, and changes of owner or mode
move it. The content of a file is compared where that time differs.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from aoti.cache.place import others_control
from aoti.errors import PackageError

if TYPE_CHECKING:
    from aoti.cache.extraction import Form, Key

MANIFEST = "manifest.json"
_FORMAT = 5
_BLOCK = 256 << 10  # bytes

_Files = dict[str, tuple[int, str, int]]


def write(directory: Path, key: Key) -> None:
    """Write the manifest of a directory. Content, owners and modes of its files must be final."""
    _write(directory, key, {name: _facts(directory / name) for name in _names(directory)})


def read_origin(directory: Path) -> tuple[str, Form]:
    """The digest of the package that a directory was extracted from, and the form of its files.

    Raises
    ------
    PackageError
        The manifest is damaged.
    """
    try:
        recorded = json.loads((directory / MANIFEST).read_bytes())
        if recorded["format"] != _FORMAT or recorded["form"] not in ("dir", "native"):
            raise PackageError(
                f"{directory} was unpacked by another version of aoti; unpack the package again"
            )
        return str(recorded["digest"]), recorded["form"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PackageError(f"{directory}: its {MANIFEST} is damaged: {error}") from error


def is_complete(directory: Path, key: Key) -> bool:
    """Whether a directory has all files of an extraction, in their sizes. It may be a copy."""
    try:
        return all(
            _has_size(directory.joinpath(name).lstat(), size)
            for name, (size, *_) in _read(directory, key).items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def problem(directory: Path, key: Key, *, compare: bool = False) -> str | None:
    """What is wrong with an extraction: None if everything in it is as it was written.

    Parameters
    ----------
    directory : Path
        Its directory.
    key : Key
        What it was made from.
    compare : bool, default False
        Compare the content of every file. Otherwise the content of those whose ctime differs.
    """
    root = str(directory)  # with texts, because every load does this
    try:
        status = os.lstat(f"{root}/{MANIFEST}")
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe waits
            return f"{MANIFEST} is not a file"
        if why := others_control(status):
            return f"{MANIFEST}: {why}"
        files = _read(directory, key)
        for folder in _folders(files):
            status = os.lstat(f"{root}/{folder}")
            if not stat.S_ISDIR(status.st_mode):
                return f"{folder or root} is not a directory"
            if why := others_control(status):
                return f"{folder or root}: {why}"
        times: dict[str, int] = {}
        for name, (size, digest, changed) in files.items():
            status = os.lstat(f"{root}/{name}")
            if not _has_size(status, size):
                return f"{name} has another size"
            if why := others_control(status):
                return f"{name}: {why}"
            times[name] = status.st_ctime_ns
            if (compare or times[name] != changed) and _digest(directory / name) != digest:
                return f"{name} has another content"
        if compare and _names(directory) != sorted(files):
            return "there are other files in it"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"{error}"
    renewed = {name: (size, digest, times[name]) for name, (size, digest, _) in files.items()}
    if any(tuple(files[name]) != facts for name, facts in renewed.items()):
        # Files that are the same under other times: of a copy, or of a container's layer.
        with contextlib.suppress(OSError):
            _write(directory, key, renewed)
    return None


def _read(directory: Path, key: Key) -> _Files:
    recorded = json.loads((directory / MANIFEST).read_bytes())
    if {**recorded, "files": {}} != {**_head(key), "files": {}}:
        raise ValueError("it is of another version, or of another package")
    files: _Files = recorded["files"]
    return files


def _write(directory: Path, key: Key, files: _Files) -> None:
    text = json.dumps({**_head(key), "files": files})
    # In place: users of the extraction hold a lock on this file. The text is as long as the one
    # that it replaces, because a time has 19 digits until the year 2286.
    file = os.open(directory / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w") as writer:
        writer.write(text)
        writer.truncate()


def _head(key: Key) -> dict[str, object]:
    return {"format": _FORMAT, "digest": key.digest, "model": key.model, "form": key.form}


def _folders(files: _Files) -> list[str]:
    """The directories of these files, the outermost first: "" is that of the extraction."""
    found = {""}
    for name in files:
        while (name := os.path.dirname(name)) not in found:  # noqa: PTH120
            found.add(name)
    return sorted(found)


def _names(directory: Path) -> list[str]:
    """The names of all files in it but the manifest, sorted."""
    files = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(directory).as_posix() for path in files)
    return sorted(name for name in names if name != MANIFEST)


def _facts(path: Path) -> tuple[int, str, int]:
    status = path.lstat()
    return status.st_size, _digest(path), status.st_ctime_ns


def _has_size(status: os.stat_result, size: int) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def _digest(path: Path) -> str:
    from hashlib import sha256  # loads OpenSSL, which most starts do not need

    whole = sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            whole.update(block)
    return whole.hexdigest()
