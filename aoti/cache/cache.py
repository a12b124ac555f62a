"""The cache of extracted models: content-addressed, bounded, and shared by processes.

::

    <location>/<digest>-dir-<model>/            an entry: manifest.json, and model/ or model.pt2
    <location>/<digest>-dir+-<model>/           the same, its weights left in the package
    <location>/<digest>-dir-<model>.lock        while a process writes or removes that entry
    <location>/<digest>-dir-<model>.partial/    an entry that is being written
    <location>/<digest>-dir-<model>.old/        an entry that is being removed
    <location>/index/<device>-<inode>.json      a digest: see aoti.cache.digests

A user of an entry holds a shared lock on its manifest. A process that writes or removes an entry
holds the entry's lock file exclusively, and removes only entries that no one else has locked. The
kernel drops the locks of a process that is killed, so unfinished work without a lock is known to be
abandoned: the next writer, and the first extraction of every process, remove it.

A model's shared object is never unmapped: the dynamic loader identifies it by its name and maps it
once, however often the model is loaded. So the name of an entry depends on its content alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aoti.cache import digests, filelock, manifest, private
from aoti.cache.extraction import (
    NAME,
    OLD,
    PARTIAL,
    Extraction,
    Form,
    Key,
    discard,
    in_place,
    needed_bytes,
    write,
)
from aoti.cache.manifest import MANIFEST
from aoti.cache.place import Place
from aoti.cache.weight_file import find_in_place
from aoti.errors import ConfigError, IncompatiblePackageError
from aoti.package.package import Package

_VERSION = "v1"  # of the layout above; other versions have directories beside it
_LOCK = ".lock"
_DEFAULT_SIZE = 10 << 30  # bytes
_INDEX = "index"

_log = logging.getLogger("aoti.cache")

swept: set[Path] = set()
# Settings of a configuration, by the environment variable that overrides each.
configured: dict[str, str] = {}


class Entry(NamedTuple):
    """An extracted model in the cache.

    Attributes
    ----------
    key : str
        Its name: the package's digest, the form, and the model.
    bytes : int
        The size of its files.
    last_used : float
        When it was last used, in seconds since the epoch.
    """

    key: str
    bytes: int
    last_used: float


def extract(
    package: Package,
    model_name: str,
    *,
    form: Form = "dir",
    shared: bool = True,
    verified: str | None = None,
    compare: bool = False,
    map_source: bool = False,
) -> Extraction:
    """Extract a model, or share an existing extraction.

    Parameters
    ----------
    package : Package
        Where the model comes from.
    model_name : str
        Its name in the package.
    form : {'dir', 'zip', 'native'}, default 'dir'
        What loads the files. ``zip``: libtorch below 2.13, whose loader does not take a directory.
        ``native``: the native engine, which the code is bound to (`aoti.package.elf_native`).
    shared : bool, default True
        Use the cache. Otherwise the model is extracted to a private directory below ``TMPDIR``,
        which is removed with its last user in this process.
    verified : str, optional
        The digest of the package, if the caller has just computed it. Otherwise it comes from the
        index if the file has not changed since.
    compare : bool, default False
        Compare the content of all files of an existing extraction with what was written.
        Otherwise the content of files that the file system changed since: see
        `aoti.cache.manifest`.
    map_source : bool, default False
        Leave the weights in the package where it contains them as they are used.

    Returns
    -------
    Extraction
        It stays in the cache until it is released.

    Raises
    ------
    ConfigError
        The location cannot be used: it is read-only, full, mounted noexec, or others control it or
        a directory above it. The message names the variable that sets the location. If the user
        did not choose the location, a private directory is used instead, with a warning in the
        log. Or ``AOTI_CACHE_SIZE`` is not a size.
    PackageError
        The package is damaged.
    IncompatiblePackageError
        The package is a directory that `aoti.unpack` wrote, in another form.

    Notes
    -----
    Safe to call from any number of threads and processes. One of them writes, and the others wait
    without the GIL. A signal whose handler raises ends the wait.
    """
    model = package.select(model_name)
    if (unpacked := in_place(package, model)) is not None:
        if unpacked.form != form:
            raise IncompatiblePackageError(_other_form(package.name, unpacked.form, form))
        return unpacked
    private.sweep()
    weights = find_in_place(package, model) if map_source else None
    bare = weights is not None
    limit = size_limit() if shared else 0
    place = _usable_place() if shared else None
    if place is None:
        key = Key(verified or digest(package), model, form, bare)
        return private.extract(package, key, weights, compare=compare)
    if place.path not in swept:
        swept.add(place.path)
        with contextlib.suppress(OSError):  # a read-only location
            _sweep(place.path)
    key = Key(verified or digests.find(package, place.path / _INDEX), model, form, bare)
    directory = place.path / key.name
    with place.named_in_errors(package):
        held = _hold(directory, key, compare=compare)
        if held is None:
            try:
                held = _provide(package, key, place, compare=compare)
            except FileNotFoundError:  # something removed the location meanwhile
                place.make(parents=True)
                held = _provide(package, key, place, compare=compare)
            with contextlib.suppress(OSError):
                _shrink(place.path, limit)
    return Extraction(directory, key, held.release, weights)


def _other_form(name: str, has: Form, wanted: Form) -> str:
    if wanted == "zip":
        return (
            f"{name} is an unpacked model, which libtorch loads since 2.13; load the package that "
            "it was made from"
        )
    engines: dict[Form, str] = {"native": "native", "dir": "libtorch"}
    return (
        f"{name} was unpacked for the {engines[has]} engine, not for the {engines[wanted]} engine; "
        f"load it without engine=, or unpack the package with engine={engines[wanted]!r}"
    )


def digest(package: Package) -> str:
    """SHA-256 of a package, in hex; not computed again while its file stays the same."""
    index: Path | None = None
    with contextlib.suppress(OSError, ConfigError):  # a location without an index
        place = _place()
        place.check()
        index = place.path / _INDEX
    return package.digest if index is None else digests.find(package, index)


def location() -> Path:
    """The directory of the cache; it need not exist yet.

    ``AOTI_CACHE_DIR``, else ``XDG_CACHE_HOME/aoti``, else ``~/.cache/aoti``, and in it one
    directory for each version of the layout.

    Raises
    ------
    ConfigError
        No variable is set and there is no home directory.
    """
    if chosen := _setting("AOTI_CACHE_DIR"):
        return Path(chosen).absolute() / _VERSION
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if Path(chosen).is_absolute():  # the specification says to ignore others
        return Path(chosen, "aoti", _VERSION)
    try:
        return Path.home() / ".cache/aoti" / _VERSION
    except RuntimeError as error:
        raise ConfigError(
            "there is no home directory for the cache of extracted models; "
            "set AOTI_CACHE_DIR to a directory that you can write to"
        ) from error


def configure(*, directory: str | None = None, size: str | None = None) -> None:
    """Set the location and the size of the cache for this process.

    ``AOTI_CACHE_DIR`` and ``AOTI_CACHE_SIZE`` take precedence.
    """
    chosen = {"AOTI_CACHE_DIR": directory, "AOTI_CACHE_SIZE": size}
    for name, text in chosen.items():
        if text is not None and not os.environ.get(name):
            configured[name] = text


def entries() -> list[Entry]:
    """The extracted models in the cache, least recently used first."""
    place = _place()
    if not place.path.exists():
        return []
    with place.named_in_errors():
        place.check()
        return _entries(place.path)


def prune(max_bytes: int) -> int:
    """Remove the least recently used entries until the cache takes no more than `max_bytes`.

    Entries in use are kept. Files that killed processes left are removed first.

    Returns
    -------
    int
        The number of bytes that were removed.
    """
    place = _place()
    if not place.path.exists():
        return 0
    with place.named_in_errors():
        place.check()
        return _shrink(place.path, max_bytes)


def _place() -> Place:
    return Place(location(), "AOTI_CACHE_DIR")


def _usable_place() -> Place | None:
    """The place of the cache, made if it is missing. None if a default place cannot be used."""
    place = _place()
    try:
        with place.named_in_errors():
            place.make(parents=True)
    except ConfigError as error:
        if _setting("AOTI_CACHE_DIR"):
            raise
        _log.warning("%s. Until then, every process extracts its models for itself", error)
        return None
    return place


def size_limit() -> int:
    """The bytes that the cache may take: ``AOTI_CACHE_SIZE``, or the settings file's."""
    text = _setting("AOTI_CACHE_SIZE")
    return parse_size(text, "AOTI_CACHE_SIZE=") if text else _DEFAULT_SIZE


def _setting(variable: str) -> str | None:
    return os.environ.get(variable) or configured.get(variable)


def parse_size(text: str, origin: str = "") -> int:
    """A number of bytes from a text such as ``500M`` or ``10G``.

    `origin` precedes the text in errors.

    Raises
    ------
    ConfigError
        The text is not a size.
    """
    match = re.fullmatch(
        r"(\d{1,18}(?:\.\d{1,18})?)([KMGT]?)", text.strip(), re.ASCII | re.IGNORECASE
    )
    if match is None:
        raise ConfigError(
            f"{origin}{text!r} is not a size; give bytes, or a number with K, M, G or T, "
            "such as 500M or 10G"
        )
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _hold(directory: Path, key: Key, *, compare: bool = False) -> filelock.FileLock | None:
    """Lock an intact entry against removal, and record its use. None if no entry is intact."""
    held = _lock_manifest(directory, exclusive=False)
    if held is None:
        return None
    if manifest.problem(directory, key, compare=compare):
        held.release()
        return None
    with contextlib.suppress(OSError):
        os.utime(held.path)
    return held


def _lock_manifest(directory: Path, *, exclusive: bool) -> filelock.FileLock | None:
    """Lock the manifest of an entry. An exclusive lock does not wait. None without a manifest.

    Raises BlockingIOError if an exclusive lock is taken.
    """
    path = directory / MANIFEST
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            return None
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a named pipe waits
            return None
        held = filelock.lock(path, exclusive=exclusive, wait=not exclusive, create=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if held is None:
        raise BlockingIOError
    return held


def _provide(package: Package, key: Key, place: Place, *, compare: bool) -> filelock.FileLock:
    """Write an entry, unless another process does so first, and lock it."""
    directory = place.path / key.name
    with _changing(directory):
        if (why := manifest.problem(directory, key, compare=compare)) is None:
            if held := _hold(directory, key):
                return held
        elif os.path.lexists(directory):
            _log.warning("%s is not as it was written (%s): extracting it again", directory, why)
        needed = needed_bytes(package, key)
        if missing := place.missing(needed):
            kept = sum(entry.bytes for entry in _entries(place.path))
            _shrink(place.path, max(0, kept - missing))
        if missing := place.missing(needed):
            raise place.too_small(missing)
        write(package, key, directory)
        _log.info("extracted %s to %s", package.name, directory)
        # No other process removes it before it is locked: that takes the lock file.
        if held := _hold(directory, key):
            return held
    raise place.refusal("something changes files there", "that nothing else writes to")


@contextlib.contextmanager
def _changing(directory: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the exclusive right to change an entry. False if it is taken and `wait` is False."""
    path = _beside(directory, _LOCK)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            discard(path)
    lock = filelock.lock(path, exclusive=True, wait=wait)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.remove()


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)


def _entries(root: Path) -> list[Entry]:
    found = []
    for directory in root.iterdir():
        if re.fullmatch(NAME, directory.name):
            last_used = 0.0
            with contextlib.suppress(OSError):
                last_used = (directory / MANIFEST).stat().st_mtime
            found.append(Entry(directory.name, _size(directory), last_used))
    return sorted(found, key=lambda entry: (entry.last_used, entry.key))


def _size(directory: Path) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process removed it just now
                total += Path(parent, name).lstat().st_size
    return total


def _shrink(root: Path, max_bytes: int) -> int:
    """Remove abandoned files, and then the least recently used entries until the rest fits."""
    _sweep(root)
    digests.forget_oldest(root / _INDEX)
    found = _entries(root)
    kept, removed = sum(entry.bytes for entry in found), 0
    for entry in found:
        if kept <= max_bytes:
            break
        if _remove(root / entry.key):
            _log.info("removed %s, last used at %.0f", root / entry.key, entry.last_used)
            removed += entry.bytes
        if not (root / entry.key).exists():  # perhaps another process was faster
            kept -= entry.bytes
    return removed


def _remove(directory: Path) -> bool:
    """Remove an entry unless it is in use or being changed."""
    old = _beside(directory, OLD)
    with _changing(directory, wait=False) as may:
        if not may:
            return False
        try:
            unused = _lock_manifest(directory, exclusive=True)
        except BlockingIOError:
            return False
        # One step, so that no process finds half an entry. A process that waits for the manifest's
        # lock will notice.
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            directory.rename(old)
        if unused is not None:
            unused.release()
        if not old.exists():
            return False
        discard(old)
        return True


def _sweep(root: Path) -> None:
    """Remove what killed processes left behind."""
    suffixes = (_LOCK, PARTIAL, OLD)
    names = (path.stem for path in root.iterdir() if path.suffix in suffixes)
    for directory in {root / name for name in names if re.fullmatch(NAME, name)}:
        with _changing(directory, wait=False) as may:
            if may:
                discard(_beside(directory, PARTIAL))
                discard(_beside(directory, OLD))
