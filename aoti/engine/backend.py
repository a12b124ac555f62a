"""Loads the libraries that run models on a GPU, when the first package asks for one.

They take 0.1 s and some hundred megabytes to load, which models on the CPU need not pay for.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from aoti.engine.dlopen import open_library
from aoti.engine.libtorch import find, used
from aoti.engine.libtorch_files import BACKEND_LIBRARIES, Libtorch, builds
from aoti.errors import LibtorchError

# Variables that name a toolkit, and where it is by default.
TOOLKITS = {
    "cuda": (("CUDA_HOME", "CUDA_PATH"), "/usr/local/cuda"),
    "rocm": (("ROCM_PATH",), "/opt/rocm"),
}
_MISSING = re.compile(r"(\S+): cannot open shared object file")
_lock = threading.Lock()


def chosen() -> tuple[Libtorch, str] | None:
    """The libtorch that is in use or would be, and what besides the CPU this build is for.

    None where no libtorch fits. Loads nothing.
    """
    try:
        libtorch, build = used() or find(builds())
    except LibtorchError:
        return None
    return libtorch, build.backend


def toolkit(backend: str, env: Mapping[str, str]) -> Path | None:
    """The directory of the backend's toolkit, if there is one.

    Raises
    ------
    LibtorchError
        A variable names a directory that is not there.
    """
    if backend not in TOOLKITS:
        return None
    variables, default = TOOLKITS[backend]
    for name in variables:
        if root := env.get(name):
            if not Path(root).is_dir():
                raise LibtorchError(f"{name}={root} is not a directory; correct it, or unset it")
            return Path(root)
    return Path(default) if Path(default).is_dir() else None


def runtime_of(libtorch: Libtorch) -> str | None:
    """What a libtorch was built for, as ``CUDA 13.0``; None if no file says."""
    try:
        text = (libtorch.lib.parent / "version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"^(cuda|hip)\b[^=\n]*=\s*['\"]([\d.]+)", text, re.MULTILINE)
    return match and f"{'CUDA' if match[1] == 'cuda' else 'ROCm'} {match[2]}"


def load() -> None:
    """Load what models on a GPU need, after the engine. Safe to call from any thread.

    Raises
    ------
    LibtorchError
        This build is for the CPU, or a library cannot be loaded.
    """
    in_use = used()
    assert in_use is not None
    with _lock:
        load_libraries(in_use[0], in_use[1].backend)


def load_libraries(libtorch: Libtorch, backend: str) -> None:
    """Load the libraries of a backend from where they are.

    Those of ROCm find their data beside themselves, so links are followed first. What they need
    beyond libtorch's own directory and what the system knows is looked for in the toolkit.

    Raises
    ------
    LibtorchError
        This build has no libraries for a GPU, or they cannot be loaded.
    """
    names = BACKEND_LIBRARIES[backend]
    if not names:
        kind = {"cuda": "CUDA", "rocm": "ROCm"}.get(libtorch.backend)
        build = f"AOTI_BACKEND={libtorch.backend} pip install --no-build-isolation ." if kind else (
            "install a torch for CUDA or ROCm, and build with AOTI_BACKEND=cuda or rocm"
        )  # fmt: skip
        raise LibtorchError(
            f"models on a GPU need a build of aoti for it, and this one is for the CPU, on "
            f"{libtorch}. Install the wheel for {kind or 'CUDA or ROCm'}, or build it: {build}"
        )
    for name in names:
        path = (libtorch.lib / name).resolve()
        try:
            _load(path, backend)
        except OSError as error:
            raise LibtorchError(
                f"{name} of {libtorch} cannot be loaded: {error}. Install that torch with all its "
                f"dependencies, or name the toolkit: {' or '.join(TOOLKITS[backend][0])}"
            ) from error


def _load(path: Path, backend: str, tried: tuple[Path, ...] = ()) -> None:
    try:
        open_library(path)
    except OSError as error:
        missing = _MISSING.match(str(error))
        other = missing and _in_toolkit(missing[1], backend)
        if not other or other in tried or other == path:
            raise
        _load(other, backend, tried)
        _load(path, backend, (*tried, other))


def _in_toolkit(name: str, backend: str) -> Path | None:
    root = toolkit(backend, os.environ)
    found = (root / lib / name for lib in ("lib64", "lib")) if root else ()
    return next((path.resolve() for path in found if path.exists()), None)
