"""Chooses the engine that runs a model: when it is loaded, before anything of it is mapped."""

from __future__ import annotations

import logging
import os
from typing import Any, Literal, NamedTuple

from aoti._text import listing
from aoti.engine import native
from aoti.errors import EngineError, IncompatiblePackageError, LibtorchError
from aoti.machine.device import Device
from aoti.options import check_engine
from aoti.package.elf import SharedObject
from aoti.package.elf_native import LIBRARY

VARIABLE = "AOTI_ENGINE"

_log = logging.getLogger("aoti.engine")


class Choice(NamedTuple):
    """The engine for a model.

    Attributes
    ----------
    name : str
        ``native`` or ``libtorch``.
    why : str
        Why it is not the native one; empty if it is, or if libtorch was asked for.
    """

    name: str
    why: str = ""

    @property
    def form(self) -> Literal["dir", "native"]:
        """The form of the files that the engine loads: see `aoti.cache.cache.extract`."""
        return "native" if self.name == "native" else "dir"

    def load(self) -> Any:
        """The engine as a capsule for the core; loaded the first time.

        Raises
        ------
        EngineError
            It cannot be loaded. The message says why the other engine was not chosen.
        """
        if self.name == "native":
            return native.engine()
        from aoti.engine import libtorch  # most models run without it

        try:
            return libtorch.engine()
        except LibtorchError as error:
            if not self.why:
                raise
            raise LibtorchError(f"{error} ({self.why})") from error


def asked() -> str:
    """The engine that the environment asks for, whether or not there is one of that name."""
    return os.environ.get(VARIABLE) or "auto"


def choose(code: SharedObject | None, device: Device, wanted: str | None = None) -> Choice:
    """Choose the engine for a model.

    Parameters
    ----------
    code : SharedObject or None
        The model's code, as the package has it or bound to the native engine; None if it cannot be
        read.
    device : Device
        Where it will run.
    wanted : {'auto', 'native', 'libtorch'}, optional
        What the caller asks for. Default: the environment variable ``AOTI_ENGINE``, or ``auto``,
        which is the native engine wherever it serves everything that the code imports.

    Raises
    ------
    IncompatiblePackageError
        The native engine was asked for, and cannot run the model.
    EngineError
        The native engine was asked for, and is not installed.
    ConfigError
        ``AOTI_ENGINE`` is not an engine.
    """
    if wanted is None:
        wanted = asked()
        check_engine(wanted, VARIABLE)
    if wanted == "libtorch":
        return Choice("libtorch")
    try:
        why = reason_against_native(code, device)
    except EngineError as error:
        if wanted == "native":
            raise
        why = str(error)
    if not why:
        return Choice("native")
    if wanted == "native":
        raise IncompatiblePackageError(f"{why}; load it with engine='libtorch'")
    _log.info("libtorch, because %s", why)
    return Choice("libtorch", why)


def reason_against_native(code: SharedObject | None, device: Device) -> str:
    """Why the native engine cannot run a model; empty if it can.

    Raises
    ------
    EngineError
        This installation does not have it.
    """
    if device.type != "cpu":
        return f"the native engine runs models on the CPU only, not on {device}"
    if code is None:
        return "the model's code cannot be read"
    native.engine()
    if LIBRARY in code.needed:
        return ""  # an unpacked model that was bound to it
    if "libtorch_cpu.so" not in code.needed:
        return "the model's code is not linked to libtorch_cpu.so"
    if lacking := native.lacking(code.defined):
        return f"the model's code lacks {listing(lacking)}"
    if missing := native.missing(code.undefined):
        return f"the native engine does not have {listing(missing)}"
    return ""
