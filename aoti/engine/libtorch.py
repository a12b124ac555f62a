"""Finds the libtorch to run on, chooses the build of the engine that fits it, and loads both.

A build for one torch minor imports on another one and returns garbage. So the version is read as
text before anything is loaded, and compared with what the loaded library says of itself before the
build is imported.

The first of these that exists is used:

1. a libtorch that is already loaded in this process (somebody imported torch);
2. the directory named by the environment variable ``LIBTORCH``;
3. the directory named in the file ``libtorch.path`` in aoti's directory, which tools/bundle writes;
4. the installed package ``torch``, which is never imported, if a build is for its minor version;
5. the installed package ``aoti_libtorch``, which contains the libraries and nothing else.

Nothing happens at import. `engine()` does everything, once, when the first model is loaded.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from aoti._warnings import warn
from aoti.engine.dlopen import open_library
from aoti.engine.libtorch_files import Build, Libtorch, builds, minor_of
from aoti.errors import LibtorchError

_AOTI = Path(__file__).parents[1]  # in a bundle, libtorch.path is there
_MODULE = "aoti.engine._libtorch._libtorch"
_RTLD_DI_ORIGIN = 6  # of dlinfo(3); ctypes and os do not name it


def find(builds: list[Build]) -> tuple[Libtorch, Build]:
    """Choose the libtorch to run on and the build that fits it. Loads nothing.

    Raises
    ------
    LibtorchError
        With all that was looked at, what is needed and how to get it.
    """
    if not builds:
        raise LibtorchError(
            "aoti has no build of the libtorch engine here. Build it: "
            "pip install torch==2.13.0 && pip install --no-build-isolation ."
        )
    if loaded := _loaded():
        return loaded, _fitting(loaded, builds, "It is loaded already and cannot be replaced.")
    if root := os.environ.get("LIBTORCH"):
        named = Libtorch.read(Path(root).absolute(), "named by LIBTORCH")
        if not named.present:
            raise LibtorchError(
                f"LIBTORCH={root} holds no lib/libtorch_cpu.so. "
                "Point it at the root of a libtorch, or unset it."
            )
        return named, _fitting(named, builds, "Point LIBTORCH at a libtorch that fits.")

    if bundled := _bundled():
        return bundled, _fitting(bundled, builds, "Make the bundle afresh.")

    installed = _installed("torch")
    if installed and (build := _fit(installed, builds)):
        return installed, build
    if provider := _installed("aoti_libtorch"):
        build = _fitting(provider, builds, f"Install a torch that fits: {_remedy(builds)}")
        if installed:
            warn(
                f"aoti runs on {provider}; the installed {installed} does not fit it. "
                "Importing torch into this process will fail.",
                RuntimeWarning,
            )
        return provider, build
    if installed:
        raise _misfit(installed, builds, f"Install one that fits: {_remedy(builds)}")
    raise LibtorchError(
        f"no libtorch was found: none is loaded, LIBTORCH is not set, and neither torch nor "
        f"aoti_libtorch is installed. This aoti needs {_needs(builds)}: {_remedy(builds)}"
    )


def _loaded() -> Libtorch | None:
    """The libtorch that is loaded in this process, if any."""
    if not _mapped(b"libtorch_cpu"):
        return None
    try:
        library = ctypes.CDLL("libtorch_cpu.so", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None
    lib = _directory_of(library)
    found = Libtorch.read(lib.parent, "loaded in this process", lib=lib)
    said = _abi_version(library)
    if said and (found.version is None or minor_of(found.version) != minor_of(said)):
        found = replace(found, version=said)
    return found


def _mapped(name: bytes) -> bool:
    """Whether a file with this in its name may be mapped.

    Asked first: for a library that is not loaded, even RTLD_NOLOAD looks into every directory that
    the dynamic loader knows.
    """
    try:
        return name in Path("/proc/self/maps").read_bytes()
    except OSError:
        return True


def _directory_of(library: ctypes.CDLL) -> Path:
    """The directory that a library was loaded from."""
    directory = ctypes.create_string_buffer(os.pathconf("/", "PC_PATH_MAX"))
    handle = ctypes.c_void_p(library._handle)
    ctypes.CDLL(None).dlinfo(handle, _RTLD_DI_ORIGIN, directory)
    return Path(os.fsdecode(directory.value))


def _abi_version(library: ctypes.CDLL) -> str | None:
    """The version that a loaded libtorch says it is: major, minor, patch in the top three bytes.

    None for one too old to have the function.
    """
    function = getattr(library, "aoti_torch_abi_version", None)
    if function is None:
        return None
    function.restype = ctypes.c_uint64
    number = function()
    return f"{number >> 56}.{number >> 48 & 0xFF}.{number >> 40 & 0xFF}"


def _bundled() -> Libtorch | None:
    """The libtorch of the bundle that this file is a part of, if it is of one."""
    directory = _AOTI
    try:
        root = (directory / "libtorch.path").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    found = Libtorch.read(Path(os.path.normpath(directory / root)), "named by this bundle")
    if not found.present:
        raise LibtorchError(
            f"{directory / 'libtorch.path'} names {found.lib.parent}, which holds no "
            "lib/libtorch_cpu.so. Copy the bundle as a whole, or make it afresh."
        )
    return found


def _installed(package: str) -> Libtorch | None:
    """The libtorch of an installed Python package, found without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    found = Libtorch.read(Path(spec.origin).parent, f"the installed package {package}")
    return found if found.present else None


def _fit(libtorch: Libtorch, builds: list[Build]) -> Build | None:
    """The build for this libtorch. A build for the CPU runs on every libtorch of its minor, but one
    for the backend of the libtorch comes first.
    """
    fitting = [
        build
        for build in builds
        if (libtorch.version is None or minor_of(libtorch.version) == build.minor)
        and build.backend in ("cpu", libtorch.backend)
    ]
    return min(fitting, key=lambda build: build.backend != libtorch.backend, default=None)


def _fitting(libtorch: Libtorch, builds: list[Build], advice: str) -> Build:
    build = _fit(libtorch, builds)
    if build is None:
        raise _misfit(libtorch, builds, advice)
    return build


def _misfit(libtorch: Libtorch, builds: list[Build], advice: str) -> LibtorchError:
    return LibtorchError(f"found {libtorch}, but this aoti needs {_needs(builds)}. {advice}")


def _needs(builds: list[Build]) -> str:
    wanted = [
        f"torch {build.minor}" + (f" for {build.backend}" if build.backend != "cpu" else "")
        for build in builds
    ]
    return " or ".join(wanted)


def _remedy(builds: list[Build]) -> str:
    kinds = {"cuda": ", with CUDA", "rocm": ", from PyTorch's index for ROCm"}
    return f"pip install 'torch=={builds[0].minor}.*'" + kinds.get(builds[0].backend, "")


def _preload(libtorch: Libtorch, build: Build, builds: list[Build]) -> tuple[Libtorch, Build]:
    """Load the libraries by their full paths, so that no search path has a say.

    RTLD_LOCAL is enough: whatever needs them names them by SONAME, and finds them loaded. Gives
    back what it was given, unless only the loaded library says its version.
    """

    def load(path: Path) -> ctypes.CDLL:
        try:
            return open_library(path)
        except OSError as error:
            raise LibtorchError(f"{libtorch} cannot be loaded: {error}") from error

    for path in (*sorted(libtorch.lib.glob("libgomp*.so*")), libtorch.lib / "libc10.so"):
        load(path)
    said = _abi_version(load(libtorch.lib / "libtorch_cpu.so"))
    if libtorch.version is None and said:
        libtorch = replace(libtorch, version=said)
        build = _fitting(libtorch, builds, f"Install one that fits: {_remedy(builds)}")
    if said is None or minor_of(said) != build.minor:
        says = f"says it is torch {said}" if said else "is too old to say its version"
        raise LibtorchError(
            f"{libtorch}: the library itself {says}, but the build that was chosen is for "
            f"{build.minor}. The installation is mixed up; install torch afresh: {_remedy([build])}"
        )
    return libtorch, build


_log = logging.getLogger("aoti.libtorch")
_lock = threading.Lock()
_state: tuple[object, Libtorch, Build] | None = None


def engine() -> Any:
    """The engine, loaded together with its libtorch on the first call: a capsule for the core.

    Safe to call from several threads. Takes about 0.2 s the first time, most of it libtorch
    registering its operators.

    Raises
    ------
    LibtorchError
        There is no libtorch that fits. Nothing is remembered: a later call tries again.
    """
    global _state  # noqa: PLW0603
    if _state is None:
        with _lock:
            if _state is None:
                available = builds()
                libtorch, chosen = _preload(*find(available), available)
                _state = (_load(chosen, libtorch), libtorch, chosen)
                place = libtorch.lib
                _log.info("torch %s from %s, engine %s", libtorch.version, place, chosen.path)
    return _state[0]


def minor() -> tuple[int, ...]:
    """The torch minor of the engine in use, after `engine` was called: ``(2, 13)``."""
    assert _state is not None
    return tuple(int(number) for number in _state[2].minor.split("."))


def used() -> tuple[Libtorch, Build] | None:
    """The libtorch and the build in use; None before the first call of `engine`."""
    return None if _state is None else _state[1:]


def library() -> ctypes.CDLL:
    """The loaded ``libtorch_cpu``, after `engine` was called."""
    assert _state is not None
    path = _state[1].lib / "libtorch_cpu.so"
    return ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)


def has_operator(name: str, overload: str) -> bool:
    """Whether an operator such as ``aten::add`` is registered in this process."""
    from aoti.engine._core import _device

    return _device.has_operator(engine(), name, overload)


def _load(chosen: Build, libtorch: Libtorch) -> object:
    """Import a build, whichever directory it is in, and make its engine known to the core."""
    from aoti.engine._core import _device

    loader = importlib.machinery.ExtensionFileLoader(_MODULE, str(chosen.path))
    spec = importlib.util.spec_from_file_location(_MODULE, chosen.path, loader=loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
    except ImportError as error:  # of the right minor, yet lacking symbols: a nightly, an old ABI
        raise LibtorchError(f"{chosen.path} does not load on {libtorch}: {error}") from error
    sys.modules[_MODULE] = module
    try:
        loader.exec_module(module)
        capsule: object = module.engine()
        _device.add_engine(capsule)
    except BaseException:
        del sys.modules[_MODULE]
        raise
    return capsule


def build_info() -> dict[str, Any]:
    """What this installation was built for, and the libtorch in use.

    Loads nothing, so it works, and is most wanted, where no libtorch fits.

    Returns
    -------
    dict
        ``version``: of aoti. ``builds``: per build of the engine its ``torch`` version,
        ``backend``, ``compiler``, ``flags``, ``cxx11_abi``, ``debug``, ``sanitize`` and ``path``.
        ``libtorch``: None before the first model is loaded, then the ``version``, ``backend``,
        ``path`` and ``source`` of the one in use.
    """
    from aoti._version import __version__

    libtorch = None
    if _state is not None:
        used = _state[1]
        libtorch = {
            "version": used.version,
            "backend": used.backend,
            "path": str(used.lib),
            "source": used.source,
        }
    return {
        "version": __version__,
        "builds": [{**build.build, "path": str(build.path)} for build in builds()],
        "libtorch": libtorch,
    }
