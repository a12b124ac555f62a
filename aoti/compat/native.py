"""Checks a model's code against the native engine, before the code is mapped."""

from __future__ import annotations

from pathlib import Path

from aoti._text import listing
from aoti.compat.binary import check_versions, defines, loaded_library, shared_object
from aoti.compat.finding import Finding
from aoti.errors import PackageError
from aoti.package.elf_native import LIBRARY

_LIBTORCH = "load it with engine='libtorch'"


def check_native(directory: Path) -> list[Finding]:
    """Compare what a model's code calls with the native engine, which is loaded.

    Parameters
    ----------
    directory : Path
        The model's directory, as for `aoti.compat.binary.check_files`.

    Returns
    -------
    list of Finding
        What could be checked. No library is loaded: the engine needs those that models need.
    """
    try:
        so = shared_object(directory)
    except PackageError as error:
        return [Finding("file", False, str(error), "copy the package again, or export it again")]
    loaded = {name: handle for name in so.needed if (handle := loaded_library(name))}
    absent = [name for name in so.needed if name not in loaded]
    wanted = [symbol.name for symbol in so.undefined if not symbol.version and not symbol.weak]
    engine = loaded.get(LIBRARY)
    missing = [name for name in wanted if engine is None or not defines(engine, name)]
    return [
        Finding("libraries", False, f"the package needs {listing(absent)}", _LIBTORCH)
        if absent
        else Finding("libraries", True, f"all libraries are there: {', '.join(so.needed)}"),
        check_versions(so, loaded),
        Finding("symbols", False, f"the native engine does not have {listing(missing)}", _LIBTORCH)
        if missing
        else Finding("symbols", True, f"the native engine has all {len(wanted)} functions"),
    ]
