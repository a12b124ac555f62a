"""Writing compiled files into a package."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.export.pt2_archive._package import package_pt2

from aoti import _files
from aoti.errors import ConfigError
from aoti.exporting.error_messages import cause, explain
from aoti.package.layout import WEIGHTS

_SPARE = 1 << 20  # bytes, for names and gaps in the archive


def check_space(directory: Path, needed: int) -> None:
    """Check that there is room for an archive of so many bytes.

    libtorch's writer ends the process when the disk is full.

    Raises
    ------
    OSError
        The disk is full.
    """
    if shutil.disk_usage(directory).free < needed + _SPARE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def missing_parents(target: Path) -> list[Path]:
    """The missing directories above a file, or above the file that a link names; innermost first.

    Raises
    ------
    ConfigError
        They cannot be created, or the innermost existing directory cannot be written to.
    """
    parents = Path(os.path.realpath(target)).parents
    missing = [parent for parent in parents if not parent.exists()]
    place = parents[len(missing)]
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK) or target.is_dir():
        raise ConfigError(f"cannot write {target}: no file can be created there")
    return missing


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a package to: if the block succeeds, it takes the place of `target`.

    The path has the same file name, since that is the prefix of every name in the archive.

    Raises
    ------
    ExportError
        The disk is full, or the directory cannot be written to.
    """
    made, done = missing_parents(target), False
    try:
        for directory in reversed(made):
            directory.mkdir(exist_ok=True)
        with _files.replacing(target) as partial:
            yield partial
        done = True
    except OSError as error:
        raise explain(error, f"write {target}") from cause(error)
    finally:
        for directory in [] if done else made:
            with contextlib.suppress(OSError):  # not made, or something else is in it
                directory.rmdir()


def write_package(
    path: Path, models: Mapping[str, Sequence[str]], extra: Mapping[str, str]
) -> None:
    """Write a package.

    Parameters
    ----------
    path : Path
        The file to write. Its final name is needed: it is the prefix of all names in the archive.
    models : mapping of str to sequence of str
        The compiled files of each model.
    extra : mapping of str to str
        Further files, by their names below ``extra/``.

    Raises
    ------
    OSError
        The disk is full.
    """
    # An empty file cannot be mapped; without it, there is nothing to map.
    files: dict[str, list[Any]] = {
        name: [f for f in compiled if not (f.endswith(WEIGHTS) and not Path(f).stat().st_size)]
        for name, compiled in models.items()
    }
    sizes = (Path(file).stat().st_size for listed in files.values() for file in listed)
    check_space(path.parent, sum(sizes) + sum(map(len, extra.values())))
    package_pt2(str(path), aoti_files=files, extra_files=dict(extra))
