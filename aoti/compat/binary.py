"""Checks a model's extracted files before its code is mapped, without libtorch.

The dynamic loader and the model's own code would find the same problems one after the other: by a
message about symbols, by SIGILL or by SIGSEGV.

This is not a protection from hostile packages, whose code runs as soon as it is mapped. But nothing
here crashes on what they contain, and none of their code is mapped.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from aoti._text import listing
from aoti.compat.finding import Finding
from aoti.compat.gpu_kernels import check_kernels
from aoti.compat.platform import export_here
from aoti.compat.weights import check_weights
from aoti.errors import PackageError
from aoti.machine.device import Device
from aoti.machine.gpu import gpus
from aoti.package.archive import Span
from aoti.package.elf import SharedObject, read_elf
from aoti.package.layout import RUN_FUNCTIONS, find_code

# CDLL, and not PyDLL, because it releases the GIL. These functions wait for the loader's lock,
# whose holder may be running a constructor that waits for the GIL.
_dl = ctypes.CDLL(None)
_dl.dlsym.restype = _dl.dlvsym.restype = ctypes.c_void_p
_dl.dlsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_dl.dlvsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)


def check_files(
    directory: Path,
    num_constants: Callable[[], int | None] = lambda: None,
    weights: Span | None = None,
    device: Device | None = None,
) -> list[Finding]:
    """Check the extracted files of a model, without libtorch.

    Parameters
    ----------
    directory : Path
        The model's directory: ``data/aotinductor/<model>`` of an extraction.
    num_constants : callable, optional
        Returns the number of the model's constants, or None if that is not known
        (`aoti.Package.num_constants`): a model without constants looks the same as one whose
        weights are missing. Called only where there are no weights.
    weights : Span, optional
        Where the extraction has its weights, if they are not in its code.
    device : Device, optional
        The device that the model will run on. For a GPU, the kernels are checked too.

    Returns
    -------
    list of Finding
        Only one if the code is damaged or for another machine. Versions of symbols are compared
        with the libraries that are loaded already. None is loaded for that, because libtorch could
        bring a different one.
    """
    try:
        so = shared_object(directory)
        findings = [_machine(so)]
        if not findings[0].ok:
            return findings
        missing = [name for name in RUN_FUNCTIONS if name not in so.defined]
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
        loaded = {name: handle for name in so.needed if (handle := loaded_library(name))}
        findings.append(check_versions(so, loaded))
        findings.append(check_weights(so, directory, num_constants, weights))
        if device is not None and device.type == "cuda":
            gpu = gpus()[0][device.index or 0 :][:1]
            if gpu and gpu[0].architecture.startswith("sm_"):
                findings.append(check_kernels(directory, gpu[0].architecture))
    except PackageError as error:
        return [Finding("file", False, str(error), "copy the package again, or export it again")]
    return findings


def shared_object(directory: Path) -> SharedObject:
    """The code of a model, read from its directory as for `check_files`.

    Raises
    ------
    PackageError
        There is not exactly one shared object, or it is damaged.
    """
    path = find_code(directory)
    facts = path.stat()
    return _read(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=2)
def _read(path: Path, _mtime_ns: int, _size: int) -> SharedObject:
    """Cached for all checks of one load: reading is a third of their time."""
    return read_elf(path)


def _machine(so: SharedObject) -> Finding:
    machine, ok = os.uname().machine, so.for_this_machine
    message = f"the model's code is for {so.machine} ({so.bits} bits, {so.byteorder} endian), "
    message += f"this machine is {machine}"
    return Finding("platform", ok, message, "" if ok else export_here(machine))


def loaded_library(name: str) -> int | None:
    """The handle of a library, if it is loaded in this process already."""
    try:
        return int(ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)._handle)
    except (OSError, ValueError):  # ValueError: a name that contains a NUL
        return None


def defines(handle: int | None, symbol: str, version: str | None = None) -> bool:
    """Whether a library defines a symbol; None stands for the global scope."""
    if version is None:
        return bool(_dl.dlsym(handle, symbol.encode()))
    return bool(_dl.dlvsym(handle, symbol.encode(), version.encode()))


def check_versions(so: SharedObject, loaded: Mapping[str, int]) -> Finding:
    """Compare the versions of symbols that code needs with the libraries that are loaded.

    Parameters
    ----------
    so : SharedObject
        The code.
    loaded : mapping of str to int
        The handles of loaded libraries, by the names that the code has for them.
    """
    missing: dict[tuple[str, str], None] = {}
    for name, version, library, weak in so.undefined:
        handle = loaded.get(library) if library else None
        if handle is None or version is None or library is None or weak:
            continue
        # The dynamic loader's own symbols are found in the global scope only.
        if not (defines(handle, name, version) or defines(_dl._handle, name, version)):
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
        "export it on a system as old as the oldest that it must run on, or run it on a newer one",
    )
