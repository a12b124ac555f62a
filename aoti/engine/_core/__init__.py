"""The array core: Cython modules over csrc/aoti/core and csrc/aoti/engine. No libtorch in it.

All modules are in one shared object, because the C++ under them has state that must exist once per
process: the pools of runners, the fork handlers, the hand-over of the GIL. Python's import system
finds a module of this folder as the function ``PyInit_<module>`` of that object (PEP 489, "Multiple
modules in one library"); the finder below says so. The modules may import errors and signature.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

from aoti.errors import LibtorchError


def _object() -> str:
    """The shared object: a source tree may hold builds for other Pythons, too."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_core{suffix}")
        if path.exists():
            return str(path)
    raise LibtorchError(
        "aoti has no compiled core here. Build it: "
        "pip install torch==2.13.0 && pip install --no-build-isolation ."
    )


def _refuse_subinterpreters() -> None:
    """Refuse other interpreters than the main one, before they take the modules for themselves.

    numpy and Cython's modules can be loaded by one interpreter of a process only, the first.
    """
    for name in ("_interpreters", "_xxsubinterpreters"):  # before Python 3.13 the second
        if importlib.util.find_spec(name) is not None:
            interpreters = importlib.import_module(name)
            if interpreters.get_current() != interpreters.get_main():
                raise LibtorchError(
                    "aoti runs models in the main interpreter only, not in a sub-interpreter; "
                    "use threads or processes"
                )
            return


class _Finder:
    """Finds the modules of this folder in the shared object."""

    @staticmethod
    def find_spec(
        name: str,
        path: object = None,  # noqa: ARG004
        target: object = None,  # noqa: ARG004
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        loader = importlib.machinery.ExtensionFileLoader(name, _object())
        return importlib.util.spec_from_file_location(name, loader.path, loader=loader)


_refuse_subinterpreters()
sys.meta_path.append(_Finder)
