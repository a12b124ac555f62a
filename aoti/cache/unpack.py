"""Unpacked models: directories that are loaded in place, without an extraction."""

from __future__ import annotations

import os
from pathlib import Path

from aoti.cache.extraction import Key, Modes, write
from aoti.engine.select import choose
from aoti.errors import ConfigError
from aoti.machine.device import Device
from aoti.package.archive import Limits
from aoti.package.package import Package, Source

_READ_ONLY = Modes(0o755, 0o444)


def unpack(
    path: Source,
    directory: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    engine: str | None = None,
    limits: Limits | None = None,
) -> Path:
    """Write a model of a package to a directory that `load` uses in place.

    For container images and machines without a cache: loading copies, hashes and writes nothing,
    and processes share the pages. The directory must not change as long as a model that was loaded
    from it exists, so its files are read-only, whatever the umask.

    Parameters
    ----------
    path : str, os.PathLike, bytes, bytearray, memoryview or binary file
        A package, as for `load`.
    directory : str or os.PathLike
        The directory to write. It must not exist, and appears only when it is complete.
    model_name : str, optional
        Which model of the package; needed only if there are several.
    engine : {'auto', 'native', 'libtorch'}, optional
        The engine that the directory is for, as for `load`: no other one loads it.
    limits : Limits, optional
        How much the package may contain before it is refused.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    ConfigError
        The directory exists.
    PackageNotFoundError, PackageError, ModelNotFoundError, IncompatiblePackageError, EngineError
        As for `load`.

    Notes
    -----
    Where the directory is for libtorch, loading it takes version 2.13 or newer.
    """
    target = Path(directory)
    with Package(path, limits=limits or Limits()) as package:
        name = package.select(model_name)
        package.check_runnable(name)
        choice = choose(package.code(name), Device(package.device(name) or "cpu"), engine)
        key = Key(package.digest, name, choice.form)
        if target.exists() or target.is_symlink():
            raise ConfigError(f"{target} exists already: name a directory that does not")
        target.parent.mkdir(parents=True, exist_ok=True)
        write(package, key, target, modes=_READ_ONLY, with_source=True)
    return target
