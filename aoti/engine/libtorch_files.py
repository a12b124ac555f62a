"""Libtorches on disk and the builds of the engine for them, described by their files alone.

Nothing is loaded here: setup.py asks, too.
"""

from __future__ import annotations

import importlib.machinery
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BUILDS = Path(__file__).parent / "_libtorch"

# Libraries that make a libtorch one of a backend, in the order in which they are loaded, after
# libtorch_cpu and only where a model needs them (aoti/engine/backend.py).
BACKEND_LIBRARIES = {
    "cpu": (),
    "cuda": ("libc10_cuda.so", "libtorch_cuda.so"),
    "rocm": ("libc10_hip.so", "libtorch_hip.so"),
}

_MARKER = re.compile(rb"AOTI_BUILD_INFO:(\{.*?\})\0", re.DOTALL)
_VERSION_FILES = (
    ("version.py", r"__version__\s*=\s*['\"]([^'\"]+)['\"]"),
    ("build-version", r"^(\d+\.\d+\.\d+\S*)"),
)
_VERSION_HEADERS = ("torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h")
_VERSION_MACRO = r"#define\s+TORCH_VERSION\s+\\?\s*\"([^\"]+)\""


def minor_of(version: str) -> str:
    """The part of a torch version that a build depends on: ``2.13`` of ``2.13.0+cpu``."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return f"{match[1]}.{match[2]}" if match else version


@dataclass(frozen=True)
class Libtorch:
    """A libtorch on disk.

    Attributes
    ----------
    lib : Path
        The directory that holds ``libtorch_cpu.so``.
    version : str or None
        Such as ``2.13.0+cpu``; None if no file says.
    backend : str
        ``cpu``, ``cuda`` or ``rocm``, by the libraries that it contains.
    source : str
        How it was found, for messages.
    """

    lib: Path
    version: str | None
    backend: str
    source: str

    @classmethod
    def read(cls, root: Path, source: str, lib: Path | None = None) -> Libtorch:
        """The libtorch under `root`, described by its files alone."""
        lib = lib or root / "lib"
        backend = next(
            (
                name
                for name, libraries in BACKEND_LIBRARIES.items()
                if libraries and (lib / libraries[-1]).exists()
            ),
            "cpu",
        )
        return cls(lib, read_version(root), backend, source)

    @property
    def present(self) -> bool:
        """Whether its main library is there."""
        return (self.lib / "libtorch_cpu.so").exists()

    def __str__(self) -> str:
        version = f"torch {self.version}" if self.version else "torch of unknown version"
        return f"{version} ({self.backend}) in {self.lib}, {self.source}"


def read_version(root: Path, include: Path | None = None) -> str | None:
    """The torch version that the files under `root` state, None if none of them does.

    `include` holds the headers, where that is not ``root/include``.
    """
    include = include or root / "include"
    files = [(root / name, pattern) for name, pattern in _VERSION_FILES]
    files += [(include / name, _VERSION_MACRO) for name in _VERSION_HEADERS]
    for path, pattern in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if match := re.search(pattern, text, re.MULTILINE):
            return match[1]
    return None


@dataclass(frozen=True)
class Build:
    """A build of the engine for one torch minor.

    Attributes
    ----------
    path : Path
        The shared object.
    build : dict
        What it was built from, as `build_info` in it says.
    """

    path: Path
    build: dict[str, Any]

    @property
    def minor(self) -> str:
        """The minor version of torch that it was built for."""
        return minor_of(self.build["torch"])

    @property
    def backend(self) -> str:
        """What it was built for: cpu, cuda or rocm."""
        return str(self.build["backend"])


def build_of(content: bytes) -> dict[str, Any] | None:
    """What the engine was built from, by the content of a file; None if the file is not a build."""
    match = _MARKER.search(content)
    return json.loads(match[1]) if match else None


def builds() -> list[Build]:
    """The builds of the engine in this installation; newest torch first."""
    found = []
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    for directory in _BUILDS.glob("torch*"):
        # A source tree may hold builds for other Pythons too: take the one that Python would.
        names = [directory / f"_libtorch{suffix}" for suffix in suffixes]
        path = next(filter(Path.exists, names), None)
        if path and (build := build_of(path.read_bytes())):
            found.append(Build(path, build))
    return sorted(found, key=lambda build: [int(n) for n in build.minor.split(".")], reverse=True)
