"""Where the tools take a torch from: a version to download, a wheel, or an installed torch."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

HELP = "a torch version for pip to fetch, a torch wheel, or the directory of an installed torch"


def site_of(source: str, scratch: Path, wanted: Callable[[str], bool]) -> Path:
    """The directory that has ``torch/`` and its ``.dist-info/``.

    That is where SOURCE is, or one below `scratch` with the `wanted` files of the wheel.
    """
    path = Path(source)
    if path.is_dir():
        return path.resolve().parent
    wheel = path if path.suffix == ".whl" else fetch(source, scratch)
    site = scratch / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site, filter(wanted, archive.namelist()))
    return site


def fetch(version: str, directory: Path) -> Path:
    """Download the torch wheel of a version for this Python and machine, with pip's settings."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--dest", str(directory), f"torch=={version}"]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"pip has no wheel of torch {version} for this Python and machine")
    return next(directory.glob("torch-*.whl"))


def version_of(source: str) -> str | None:
    """The version that a SOURCE names by itself; None where its files have to be read for it."""
    path = Path(source)
    if path.is_dir():
        return None
    return path.name.split("-")[1] if path.suffix == ".whl" else source
