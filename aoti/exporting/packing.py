"""From compiled files to a package in its place."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.export.pt2_archive._package import package_pt2

from aoti.errors import ConfigError
from aoti.exporting.failures import cause, explain


def missing_parents(target: Path) -> list[Path]:
    """The directories above a file that are not there, the innermost first.

    Raises
    ------
    ConfigError
        They cannot be made, or nothing can be written to the innermost that is there.
    """
    missing = [parent for parent in target.parents if not parent.exists()]
    place = target.parents[len(missing)]
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK) or target.is_dir():
        raise ConfigError(f"cannot write {target}: no file can be made there")
    return missing


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a package to, which takes the place of `target` if all goes well.

    It has the same name, which is the prefix of every name in the archive, in a directory beside
    it, which is gone at the end.

    Raises
    ------
    ExportError
        The disk is full, or the place cannot be written to.
    """
    made = missing_parents(target)
    scratch = target.parent / f".aoti-export-{secrets.token_hex(4)}"
    done = False
    try:
        try:
            scratch.mkdir(parents=True)
            yield scratch / target.name
            (scratch / target.name).replace(target)
            done = True
        except OSError as error:
            raise explain(error, f"write {target}") from cause(error)
    finally:
        (scratch / target.name).unlink(missing_ok=True)
        for directory in [scratch, *([] if done else made)]:
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()


def write_package(
    path: Path, models: Mapping[str, Sequence[str]], extra: Mapping[str, str]
) -> None:
    """Write a package.

    Parameters
    ----------
    path : Path
        Where to.
    models : mapping of str to sequence of str
        The compiled files of each model.
    extra : mapping of str to str
        Further files, by their names below ``extra/``.
    """
    # A file of no bytes cannot be mapped, and without one there is nothing to map.
    files: dict[str, list[Any]] = {
        name: [
            f for f in compiled if not (f.endswith("_weights.blob") and not Path(f).stat().st_size)
        ]
        for name, compiled in models.items()
    }
    try:
        package_pt2(str(path), aoti_files=files, extra_files=dict(extra))
    except RuntimeError as error:  # libtorch's writer, which has one kind of error for everything
        if os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize < 1 << 20:
            raise OSError(28, os.strerror(28), str(path)) from error
        raise explain(error, f"write {path}") from cause(error)
