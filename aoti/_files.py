"""Files that are complete or not there: written aside, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to: when the block ends, its file takes the place of `target`.

    If the block raises, `target` stays as it was. The path has the same file name, in a directory
    that is removed at the end. Links are followed, and a file keeps its permissions. What is not a
    regular file (a pipe, a device), or is an output of this process, is not replaced: the content
    is written to it.

    Raises
    ------
    OSError
        `target` or its directory cannot be written to, or the file is not there at the end.
    """
    place, old = Path(os.path.realpath(target)), _status(target)
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    stream = None if old is None else _stream(old)
    replaced = old is None or (stat.S_ISREG(old.st_mode) and stream is None)
    scratch = Path(tempfile.mkdtemp(prefix=".aoti-", dir=place.parent if replaced else None))
    partial = scratch / target.name
    try:
        yield partial
        if not replaced:
            with partial.open("rb") as content, _opened(target, stream) as file:
                shutil.copyfileobj(content, file)
            return
        if old is not None:
            partial.chmod(old.st_mode & 0o777)
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it
            scratch.rmdir()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _stream(file: os.stat_result) -> int | None:
    """The output of this process that a file is: others write to it, too."""
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            if os.path.samestat(file, os.fstat(stream)):
                return stream
    return None


def _opened(target: Path, stream: int | None) -> IO[bytes]:
    """The file to write to; an output of this process goes on where it is."""
    return target.open("wb") if stream is None else os.fdopen(os.dup(stream), "wb")
