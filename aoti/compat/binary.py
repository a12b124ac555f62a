"""Looks at a model before its code is mapped: would it load and run here?

What the dynamic loader, libtorch and the model's own code would otherwise find out one after the
other, by a message about symbols, by SIGILL or by SIGSEGV, is looked at in three steps, each of
which needs more than the one before: the package's metadata (in `aoti.compat.platform`), its
extracted files, and a loaded libtorch. Every step gives findings; `aoti.compat.finding.require`
turns those that are not in order into an error.

This is no protection from hostile packages, whose code runs as soon as it is mapped. But nothing
here crashes on what they hold, and none of their code is mapped.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aoti.compat.finding import Finding, listing, show
from aoti.compat.platform import export_here
from aoti.compat.weights import check_weights
from aoti.engine.dlopen import open_library
from aoti.errors import PackageError
from aoti.machine.device import Device
from aoti.machine.gpu import gpus
from aoti.package.archive import Span
from aoti.package.cubin import check_kernels
from aoti.package.elf import SharedObject, Undefined, read_elf
from aoti.package.layout import find_code, operator_list

# Called by our runners, torch/csrc/inductor/aoti_runner/model_container_runner.cpp: without one of
# the Runs, libtorch loads the model all the same and jumps to address 0 at the first call.
_RUN_SYMBOLS = tuple(
    f"AOTInductorModelContainer{name}"
    for name in (
        "CreateWithDevice",
        "Delete",
        "Run",
        "RunSingleThreaded",
        "GetNumOutputs",
        "GetNumConstants",
        "GetConstantName",
        "GetConstantOriginalFQN",
        "GetConstantDtype",
        "GetCallSpec",
    )
)
_NODES_LIMIT = 64 << 20  # bytes of JSON

# CDLL, which gives up the GIL, and not PyDLL: these wait for the loader's lock, and who holds that
# may be running a constructor that waits for the GIL.
_dl = ctypes.CDLL(None)
_dl.dlsym.restype = _dl.dlvsym.restype = ctypes.c_void_p
_dl.dlsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_dl.dlvsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)


# -- the files ---------------------------------------------------------------------------------


def check_files(
    directory: Path,
    num_constants: Callable[[], int | None] = lambda: None,
    weights: Span | None = None,
    device: Device | None = None,
) -> list[Finding]:
    """Look at the extracted files of a model, without libtorch.

    Parameters
    ----------
    directory : Path
        The model's directory: ``data/aotinductor/<model>`` of an extraction.
    num_constants : callable, optional
        Tells how many constants the model has, or None if that is not known
        (`aoti.Package.num_constants`): a model without constants looks the same as one whose
        weights are missing. Asked only where there are none.
    weights : Span, optional
        Where the extraction has its weights, if they are not in its code.
    device : Device, optional
        Where it shall run, if that is a GPU: its kernels are looked at then.

    Returns
    -------
    list of Finding
        Versions of symbols are compared with the libraries that are loaded already. None is loaded
        for it: it could be another one than libtorch would have brought.
    """
    try:
        so = _shared_object(directory)
        findings = [_machine(so)]
        if not findings[0].ok:
            return findings
        missing = [name for name in _RUN_SYMBOLS if name not in so.defined]
        findings.append(
            Finding(
                "symbols",
                not missing,
                f"the model's code lacks {listing(missing)}"
                if missing
                else "the model's code has all functions that the runtime calls",
                "export it again, with torch 2.11 or newer" if missing else "",
            )
        )
        loaded = {name: handle for name in so.needed if (handle := _loaded(name))}
        findings.append(_versions(so, loaded))
        findings.append(check_weights(so, directory, num_constants, weights))
        if device is not None and device.type == "cuda":
            gpu = gpus()[0][device.index or 0 :][:1]
            if gpu and gpu[0].architecture.startswith("sm_"):
                findings.append(check_kernels(directory, gpu[0].architecture))
    except PackageError as error:
        return [Finding("file", False, str(error), "copy the package again, or export it again")]
    return findings


def _shared_object(directory: Path) -> SharedObject:
    path = find_code(directory)
    facts = path.stat()
    return _read(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=2)
def _read(path: Path, _mtime_ns: int, _size: int) -> SharedObject:
    """Read once for both steps: that is a third of their time. Extractions are never rewritten."""
    return read_elf(path)


def _machine(so: SharedObject) -> Finding:
    machine = os.uname().machine
    ok = (so.machine, so.bits, so.byteorder) == (machine, 64, sys.byteorder)
    message = f"the model's code is for {so.machine} ({so.bits} bits, {so.byteorder} endian), "
    message += f"this machine is {machine}"
    return Finding("platform", ok, message, "" if ok else export_here(machine))


def _loaded(name: str) -> int | None:
    """The handle of a library that is in the process already."""
    try:
        return int(ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)._handle)
    except (OSError, ValueError):  # ValueError: a name that holds a NUL
        return None


def _versions(so: SharedObject, loaded: Mapping[str, int]) -> Finding:
    missing: dict[tuple[str, str], None] = {}
    for name, version, library, weak in so.undefined:
        handle = loaded.get(library) if library else None
        if handle is None or version is None or library is None or weak:
            continue
        names = name.encode(), version.encode()
        # The dynamic loader's own symbols are found in the global scope only.
        if not (_dl.dlvsym(handle, *names) or _dl.dlvsym(_dl._handle, *names)):
            missing[version, library] = None
    if not missing:
        libraries = ", ".join(loaded) or "none of them is loaded yet"
        return Finding("versions", True, f"versions of symbols fit the libraries: {libraries}")
    glibc = os.confstr("CS_GNU_LIBC_VERSION") or "another C library"
    asked = listing([f"{version} of {library}" for version, library in missing])
    return Finding(
        "versions",
        False,
        f"the package needs {asked}, which this system does not have (it has {glibc})",
        "export it on a system as old as the oldest that it shall run on, or run it on a newer one",
    )


# -- libtorch ----------------------------------------------------------------------------------


def check_libtorch(
    directory: Path,
    library: ctypes.CDLL | Callable[[str], bool],
    has_operator: Callable[[str, str], bool],
) -> list[Finding]:
    """Compare what a model's code calls with the libtorch that is loaded.

    Parameters
    ----------
    directory : Path
        The model's directory, as for `check_files`.
    library : ctypes.CDLL or callable
        The loaded libtorch, or a function that tells whether it defines a symbol.
    has_operator : callable
        Whether an operator is registered, by name and overload: `aoti._core.has_operator`.

    Returns
    -------
    list of Finding
        Libraries that are neither loaded nor libtorch's own are loaded for it, as they would be in
        the next moment.
    """
    try:
        so = _shared_object(directory)
        found = {name: _loaded(name) or _load(so, name) for name in so.needed}
        missing = [name for name, handle in found.items() if handle is None]
        libraries = f"the package needs {listing(missing)}, which cannot be loaded here"
        loaded = {name: handle for name, handle in found.items() if handle}
        return [
            Finding("libraries", False, libraries, _install(missing))
            if missing
            else Finding("libraries", True, f"all libraries are there: {', '.join(so.needed)}"),
            _versions(so, loaded),
            _functions(so, loaded, library),
            _operators(so, has_operator),
        ]
    except PackageError as error:
        return [Finding("file", False, str(error), "copy the package again, or export it again")]


def _of_torch(name: str) -> bool:
    return name.startswith(("libtorch", "libc10", "libaoti"))


def _load(so: SharedObject, name: str) -> int | None:
    # A second libtorch beside the first would register every operator again, and abort.
    if _of_torch(name):
        return None
    places = (so.runpath or "").replace("$ORIGIN", str(so.path.parent)).split(":")
    for path in [*(f"{place}/{name}" for place in filter(os.path.isabs, places)), name]:
        with contextlib.suppress(OSError, ValueError):
            return int(open_library(path)._handle)
    return None


def _install(missing: list[str]) -> str:
    if any("cuda" in name for name in missing):
        return "install a torch for CUDA, or export the model on the CPU"
    if any("hip" in name for name in missing):
        return "install a torch for ROCm, or export the model on the CPU"
    return "install what brings them, or put their directory into LD_LIBRARY_PATH"


def _functions(
    so: SharedObject, loaded: Mapping[str, int], library: ctypes.CDLL | Callable[[str], bool]
) -> Finding:
    """Is all there that is called?"""
    linked = any(map(_of_torch, so.needed))
    scopes = [handle for name, handle in loaded.items() if _of_torch(name)] + [None]
    others = [handle for name, handle in loaded.items() if not _of_torch(name)]

    def defined(symbol: Undefined) -> bool:
        name = symbol.name.encode()
        if any(_dl.dlsym(handle, name) for handle in (*scopes, *others)):
            return True
        if not linked:
            return False  # and a libtorch that was loaded locally is none of its business
        if isinstance(library, ctypes.CDLL):
            return bool(_dl.dlsym(library._handle, name))
        return library(symbol.name)

    wanted = _called(so)
    missing = [symbol.name for symbol in wanted if not defined(symbol)]
    if not missing:
        return Finding("symbols", True, f"libtorch has all {len(wanted)} functions that are called")
    if not linked and any(name.startswith("aoti_torch_") for name in missing):
        message = "the package was not linked with libtorch, and so does not find its functions"
        fix = "export it with aot_inductor.link_libtorch=True"
        return Finding("symbols", False, message, fix)
    return Finding(
        "symbols",
        False,
        f"the package calls {listing(missing)}, and this libtorch{_torch_version()} has no such "
        f"function{'s' if len(missing) > 1 else ''}",
        "export it again with the torch it shall run on, or run it on the torch of its export",
    )


def _called(so: SharedObject) -> list[Undefined]:
    """The plain names that somebody must define. Those with a version belong to other libraries."""
    return [symbol for symbol in so.undefined if symbol.version is None and not symbol.weak]


def _torch_version() -> str:
    """For a message: `` (torch 2.13.0)``."""
    from aoti.engine.libtorch import build_info

    used = build_info()["libtorch"]
    return f" (torch {used['version']})" if used else ""


def _operators(so: SharedObject, has_operator: Callable[[str, str], bool]) -> Finding:
    missing: dict[str, bool] = {}
    try:
        for target, in_python in _targets(operator_list(so.path)):
            name, _, overload = target.partition(".")
            if not has_operator(name, overload):
                missing[target] = in_python
    except (ValueError, LookupError, RecursionError, AttributeError, TypeError) as error:
        raise PackageError(f"the list of the model's operators is damaged: {error}") from error
    if not missing:
        return Finding("operators", True, "all operators outside of the package are registered")
    spaces = listing(list(dict.fromkeys(name.partition("::")[0] for name in missing)))
    load = "import the Python package that defines it" if any(missing.values()) else (
        "load the library that registers it first, by ctypes.CDLL(\"lib....so\") or by importing "
        "its Python package"
    )  # fmt: skip
    return Finding(
        "operators",
        False,
        f"the package calls {listing(list(missing))}, and no loaded library registers operators of "
        f"that name in {spaces}",
        f"{load}, or export the model without it",
    )


def stands_on_libtorch(directory: Path, library: ctypes.CDLL) -> bool:
    """Whether a model's code calls nothing but libtorch and what that is linked to: no operators
    of others, neither by name nor as functions. Parameters as of `check_libtorch`.
    """
    so = _shared_object(directory)
    return not operator_list(so.path).exists() and all(
        _dl.dlsym(library._handle, symbol.name.encode()) for symbol in _called(so)
    )


def _targets(path: Path) -> Iterator[tuple[str, bool]]:
    """Operators that libtorch's proxy executor calls for the model, and whether Python defines it.

    Format: `OSSProxyExecutor` in ``torch/csrc/inductor/aoti_torch/oss_proxy_executor.cpp``.
    """
    if not path.exists():
        return
    if path.stat().st_size > _NODES_LIMIT:
        raise ValueError(f"it has {path.stat().st_size} bytes")
    document: Any = json.loads(path.read_bytes())
    for entry in document["nodes"]:
        node = entry["node"]
        target = node["target"]
        if target == "call_torchbind":
            continue
        if not re.fullmatch(r"[\w-]+::[\w-]+(\.[\w-]+)?", target):
            raise ValueError(f"{show(target)} is no operator")
        yield target, (node.get("metadata") or {}).get("torch_library_custom_op") == "1"
