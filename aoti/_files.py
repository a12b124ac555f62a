"""Files that are complete or not there: written aside, then renamed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to: when the block ends, its file takes the place of `target`.

    If the block raises, `target` stays as it was. The path has the same file name, in a directory
    beside `target` that is removed at the end.

    Raises
    ------
    OSError
        The directory cannot be written to, or the file is not there at the end.
    """
    scratch = Path(tempfile.mkdtemp(prefix=".aoti-", dir=target.parent))
    partial = scratch / target.name
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it
            scratch.rmdir()
