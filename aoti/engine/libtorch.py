"""Finds the libtorch to run on, checks that it fits a compiled core, and loads both.

A core built for one torch minor that meets another one imports and returns garbage, so everything
stands on the check here: the version is read as text before anything is loaded, and compared again
with what the loaded library says of itself before the core is imported.

Looked at in this order, the first that is there decides:

1. a libtorch that is already loaded in this process (somebody imported torch);
2. the directory named by the environment variable ``LIBTORCH``;
3. the directory named in the file ``libtorch.path`` of aoti's directory, which tools/bundle writes;
4. the installed package ``torch``, if there is a core for its minor version (it is never imported);
5. the installed package ``aoti_libtorch``, which brings nothing but the libraries.

Nothing happens at import. `core()` does it all, once, when the first model is loaded.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import json
import logging
import os
import re
import sys
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aoti.engine.dlopen import open_library
from aoti.errors import LibtorchError

if TYPE_CHECKING:
    from types import ModuleType

_AOTI = Path(__file__).parents[1]  # the cores, and in a bundle libtorch.path, are there

# Libraries that make a libtorch one of a backend, in the order in which they are loaded, after
# libtorch_cpu and only where a model needs them (aoti/engine/backend.py).
BACKEND_LIBRARIES = {
    "cpu": (),
    "cuda": ("libc10_cuda.so", "libtorch_cuda.so"),
    "rocm": ("libc10_hip.so", "libtorch_hip.so"),
}

_RTLD_DI_ORIGIN = 6  # of dlinfo(3); ctypes and os do not name it
_MARKER = re.compile(rb"AOTI_BUILD_INFO:(\{.*?\})\0", re.DOTALL)
_VERSION_FILES = (
    ("version.py", r"__version__\s*=\s*['\"]([^'\"]+)['\"]"),
    ("build-version", r"^(\d+\.\d+\.\d+\S*)"),
)
_VERSION_HEADERS = ("torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h")
_VERSION_MACRO = r"#define\s+TORCH_VERSION\s+\\?\s*\"([^\"]+)\""


def minor_of(version: str) -> str:
    """The part of a torch version that a core depends on: ``2.13`` of ``2.13.0+cpu``."""
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
        Such as ``2.13.0+cpu``; None where no file tells.
    backend : str
        ``cpu``, ``cuda`` or ``rocm``, told by the libraries it brings.
    source : str
        How it was found, for messages.
    """

    lib: Path
    version: str | None
    backend: str
    source: str

    @classmethod
    def read(cls, root: Path, source: str, lib: Path | None = None) -> Libtorch:
        """What stands under `root`, told by its files alone."""
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
class Core:
    """A compiled core: the file, and what it was built from (`build_info` compiled into it)."""

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
    """What a core was built from, by the content of its file; None if it is no core."""
    match = _MARKER.search(content)
    return json.loads(match[1]) if match else None


def cores() -> list[Core]:
    """The compiled cores of this installation, found beside aoti's modules; newest torch first."""
    found = []
    for directory in _AOTI.glob("_torch*"):
        # A source tree may hold builds for other Pythons too: take the one that Python would.
        names = [directory / f"_core{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
        path = next(filter(Path.exists, names), None)
        if path and (build := build_of(path.read_bytes())):
            found.append(Core(path, build))
    return sorted(found, key=lambda core: [int(n) for n in core.minor.split(".")], reverse=True)


def find(cores: list[Core]) -> tuple[Libtorch, Core]:
    """Choose the libtorch to run on and the core that fits it. Loads nothing.

    Raises
    ------
    LibtorchError
        With all that was looked at, what is needed and how to get it.
    """
    if not cores:
        raise LibtorchError(
            "aoti has no compiled core here. Build it: "
            "pip install torch==2.13.0 && pip install --no-build-isolation ."
        )
    if loaded := _loaded():
        return loaded, _fitting(loaded, cores, "It is loaded already and cannot be replaced.")
    if root := os.environ.get("LIBTORCH"):
        named = Libtorch.read(Path(root).absolute(), "named by LIBTORCH")
        if not named.present:
            raise LibtorchError(
                f"LIBTORCH={root} holds no lib/libtorch_cpu.so. "
                "Point it at the root of a libtorch, or unset it."
            )
        return named, _fitting(named, cores, "Point LIBTORCH at a libtorch that fits.")

    if bundled := _bundled():
        return bundled, _fitting(bundled, cores, "Make the bundle afresh.")

    installed = _installed("torch")
    if installed and (core := _fit(installed, cores)):
        return installed, core
    if provider := _installed("aoti_libtorch"):
        core = _fitting(provider, cores, f"Install a torch that fits: {_remedy(cores)}")
        if installed:
            warnings.warn(
                f"aoti runs on {provider}; the installed {installed} does not fit it. "
                "Importing torch into this process will fail.",
                RuntimeWarning,
                stacklevel=5,
            )
        return provider, core
    if installed:
        raise _misfit(installed, cores, f"Install one that fits: {_remedy(cores)}")
    raise LibtorchError(
        f"no libtorch was found: none is loaded, LIBTORCH is not set, and neither torch nor "
        f"aoti_libtorch is installed. This aoti needs {_needs(cores)}: {_remedy(cores)}"
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


def _fit(libtorch: Libtorch, cores: list[Core]) -> Core | None:
    """The core for this libtorch. A cpu core runs on every libtorch of its minor, but one for the
    libtorch's own backend comes first.
    """
    fitting = [
        core
        for core in cores
        if (libtorch.version is None or minor_of(libtorch.version) == core.minor)
        and core.backend in ("cpu", libtorch.backend)
    ]
    return min(fitting, key=lambda core: core.backend != libtorch.backend, default=None)


def _fitting(libtorch: Libtorch, cores: list[Core], advice: str) -> Core:
    core = _fit(libtorch, cores)
    if core is None:
        raise _misfit(libtorch, cores, advice)
    return core


def _misfit(libtorch: Libtorch, cores: list[Core], advice: str) -> LibtorchError:
    return LibtorchError(f"found {libtorch}, but this aoti needs {_needs(cores)}. {advice}")


def _needs(cores: list[Core]) -> str:
    wanted = [
        f"torch {core.minor}" + (f" for {core.backend}" if core.backend != "cpu" else "")
        for core in cores
    ]
    return " or ".join(wanted)


def _remedy(cores: list[Core]) -> str:
    kinds = {"cuda": ", with CUDA", "rocm": ", from PyTorch's index for ROCm"}
    return f"pip install 'torch=={cores[0].minor}.*'" + kinds.get(cores[0].backend, "")


def _preload(libtorch: Libtorch, core: Core, cores: list[Core]) -> tuple[Libtorch, Core]:
    """Load the libraries by their full paths, so that no search path has a say.

    RTLD_LOCAL is enough: whatever needs them names them by SONAME, and finds them loaded. Gives
    back what it was given, except where only the loaded library tells its version.
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
        core = _fitting(libtorch, cores, f"Install one that fits: {_remedy(cores)}")
    if said is None or minor_of(said) != core.minor:
        says = f"says it is torch {said}" if said else "is too old to say its version"
        raise LibtorchError(
            f"{libtorch}: the library itself {says}, but the core that was chosen is for "
            f"{core.minor}. The installation is mixed up; install torch afresh: {_remedy([core])}"
        )
    return libtorch, core


_log = logging.getLogger("aoti.libtorch")
_lock = threading.Lock()
_state: tuple[ModuleType, Libtorch, Core] | None = None


def core() -> Any:  # the module aoti._core, typed by _core.pyi
    """The compiled core, loaded together with its libtorch on the first call.

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
                available = cores()
                libtorch, chosen = _preload(*find(available), available)
                _state = (_import(chosen, libtorch), libtorch, chosen)
                _log.info("torch %s from %s, core %s", libtorch.version, libtorch.lib, chosen.path)
    return _state[0]


def core_minor() -> tuple[int, ...]:
    """The torch minor of the core in use, after `core` was called: ``(2, 13)``."""
    assert _state is not None
    return tuple(int(number) for number in _state[2].minor.split("."))


def used() -> tuple[Libtorch, Core] | None:
    """The libtorch and the core in use; None before the first call of `core`."""
    return None if _state is None else _state[1:]


def library() -> ctypes.CDLL:
    """The loaded ``libtorch_cpu``, after `core` was called."""
    assert _state is not None
    path = _state[1].lib / "libtorch_cpu.so"
    return ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)


def _import(chosen: Core, libtorch: Libtorch) -> ModuleType:
    """Import a core under the name ``aoti._core``, whichever directory it stands in."""
    loader = importlib.machinery.ExtensionFileLoader("aoti._core", str(chosen.path))
    spec = importlib.util.spec_from_file_location("aoti._core", chosen.path, loader=loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
    except ImportError as error:  # of the right minor, yet lacking symbols: a nightly, an old ABI
        raise LibtorchError(f"{chosen.path} does not load on {libtorch}: {error}") from error
    sys.modules["aoti._core"] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules["aoti._core"]
        raise
    return module


def build_info() -> dict[str, Any]:
    """What this installation was built for, and the libtorch in use.

    Loads nothing, so it works, and is most wanted, where no libtorch fits.

    Returns
    -------
    dict
        ``version``: of aoti. ``cores``: per compiled core its ``torch`` version, ``backend``,
        ``compiler``, ``flags``, ``cxx11_abi``, ``debug``, ``sanitize`` and ``path``.
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
        "cores": [{**core.build, "path": str(core.path)} for core in cores()],
        "libtorch": libtorch,
    }
