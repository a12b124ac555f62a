"""Checks a model's code against the libtorch that is loaded, before the code is mapped."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from aoti._text import listing, quoted
from aoti.compat.binary import check_versions, defines, loaded_library, shared_object
from aoti.compat.finding import Finding
from aoti.engine.dlopen import open_library
from aoti.errors import PackageError
from aoti.package.elf import SharedObject, Undefined, read_elf
from aoti.package.layout import operator_list

_NODES_LIMIT = 64 << 20  # bytes of JSON


def check_libtorch(
    directory: Path,
    library: ctypes.CDLL | Callable[[str], bool],
    has_operator: Callable[[str, str], bool],
    *,
    load: bool = True,
) -> list[Finding]:
    """Compare what a model's code calls with the libtorch that is loaded.

    Parameters
    ----------
    directory : Path
        The model's directory, as for `check_files`.
    library : ctypes.CDLL or callable
        The loaded libtorch, or a function that returns whether libtorch defines a symbol.
    has_operator : callable
        Whether an operator is registered, by name and overload: `engine.libtorch.has_operator`.
    load : bool, default True
        Load the libraries that the code needs and that are not libtorch's, as loading the code
        would do next. They are loaded after all that can be checked without them is fine.

    Returns
    -------
    list of Finding
        What could be checked.
    """
    try:
        so = shared_object(directory)
        found = {name: loaded_library(name) for name in so.needed}
        files = {name: _find(so, name) for name, handle in found.items() if handle is None}
        loaded = {name: handle for name, handle in found.items() if handle}
        if files:
            before = _without(files, so, loaded, library)
            if not load or not all(finding.ok for finding in before):
                return before
            loaded |= {name: handle for name in files if (handle := _load(files[name]))}
        missing = [name for name in so.needed if name not in loaded]
        libraries = f"the package needs {listing(missing)}, which cannot be loaded here"
        return [
            Finding("libraries", False, libraries, _install(missing))
            if missing
            else Finding("libraries", True, f"all libraries are there: {', '.join(so.needed)}"),
            check_versions(so, loaded),
            _functions(so, loaded, library),
            _operators(so, has_operator),
        ]
    except PackageError as error:
        return [Finding("file", False, str(error), "copy the package again, or export it again")]


_Place = Path | str | None


def _without(
    files: Mapping[str, _Place],
    so: SharedObject,
    loaded: Mapping[str, int],
    library: ctypes.CDLL | Callable[[str], bool],
) -> list[Finding]:
    """What can be checked before the other libraries are loaded, whose constructors are code."""
    findings = [check_versions(so, loaded)]
    with contextlib.suppress(PackageError, OSError):  # the dynamic loader may find another one
        parts = [read_elf(place) for place in files.values() if isinstance(place, Path)]
        below = {name for part in parts for name in part.needed}  # may define functions, too
        if len(parts) == len(files) and all(
            name in files or loaded_library(name) for name in below
        ):
            functions = frozenset[str]().union(*(part.defined for part in parts))
            findings.append(_functions(so, loaded, library, functions))
    return findings


def _of_torch(name: str) -> bool:
    return name.startswith(("libtorch", "libc10", "libaoti"))


def _find(so: SharedObject, name: str) -> _Place:
    """A library that the code needs: its file, its name for the dynamic loader to search, or None.

    Raises PackageError if the current directory would decide what is loaded.
    """
    # A second libtorch beside the first would register every operator again, and then abort.
    if _of_torch(name):
        return None
    origin, runpath = str(so.path.parent), so.runpath or ""
    for written in ("$ORIGIN", "${ORIGIN}"):
        runpath = runpath.replace(written, origin)
    places = runpath.split(":")
    named = [name] if "/" in name else []
    searched = [*(places if so.runpath else []), *named]
    relative = [place for place in searched if not place.startswith("/")]
    if relative:
        raise PackageError(
            f"{so.path.name} needs {quoted(name)} from {quoted(relative[0])}, which depends on the "
            "current directory"
        )
    files = [Path(place, name) for place in places if place]
    readable = (file for file in files if os.access(file, os.R_OK) and not file.is_dir())
    return next(readable, name)


def _load(place: _Place) -> int | None:
    if place is not None:
        with contextlib.suppress(OSError, ValueError):
            return int(open_library(place)._handle)
    return None


def _install(missing: list[str]) -> str:
    if any("cuda" in name for name in missing):
        return "install a torch for CUDA, or export the model on the CPU"
    if any("hip" in name for name in missing):
        return "install a torch for ROCm, or export the model on the CPU"
    return "install the packages that contain them, or add their directory to LD_LIBRARY_PATH"


def _functions(
    so: SharedObject,
    loaded: Mapping[str, int],
    library: ctypes.CDLL | Callable[[str], bool],
    files: Collection[str] = (),
) -> Finding:
    """Compare the functions that the code calls with those that libraries define.

    `files` are the functions of libraries that are not loaded yet.
    """
    linked = any(map(_of_torch, so.needed))
    scopes = [handle for name, handle in loaded.items() if _of_torch(name)] + [None]
    others = [handle for name, handle in loaded.items() if not _of_torch(name)]

    def defined(symbol: Undefined) -> bool:
        if symbol.name in files or any(
            defines(handle, symbol.name) for handle in (*scopes, *others)
        ):
            return True
        if not linked:
            return False  # the dynamic loader would not search a libtorch that was loaded locally
        if isinstance(library, ctypes.CDLL):
            return defines(library._handle, symbol.name)
        return library(symbol.name)

    wanted = _called(so)
    missing = [symbol.name for symbol in wanted if not defined(symbol)]
    if not missing:
        return Finding("symbols", True, f"libtorch has all {len(wanted)} functions that are called")
    if not linked and any(name.startswith("aoti_torch_") for name in missing):
        message = "the package was not linked with libtorch, so it cannot find libtorch's functions"
        fix = "export it with aot_inductor.link_libtorch=True"
        return Finding("symbols", False, message, fix)
    return Finding(
        "symbols",
        False,
        f"the package calls {listing(missing)}, but this libtorch{_torch_version()} has no such "
        f"function{'s' if len(missing) > 1 else ''}",
        "export it again with the torch that it must run on, or run it on the torch of its export",
    )


def _called(so: SharedObject) -> list[Undefined]:
    """The symbols that libtorch must define. Those with a version belong to other libraries."""
    return [symbol for symbol in so.undefined if symbol.version is None and not symbol.weak]


def _torch_version() -> str:
    """The version in use, for a message: `` (torch 2.13.0)``."""
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
        return Finding("operators", True, "all operators that the package calls are registered")
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
    """Whether a model's code calls only libtorch and the libraries that libtorch is linked to.

    It then calls no operators of other libraries, neither by name nor as functions. Parameters are
    those of `check_libtorch`.
    """
    so = shared_object(directory)
    return not operator_list(so.path).exists() and all(
        defines(library._handle, symbol.name) for symbol in _called(so)
    )


def _targets(path: Path) -> Iterator[tuple[str, bool]]:
    """The operators that libtorch's proxy executor calls, and whether Python code defines them.

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
            raise ValueError(f"{quoted(target)} is not an operator")
        yield target, (node.get("metadata") or {}).get("torch_library_custom_op") == "1"
