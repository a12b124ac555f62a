"""Checks that a process without PyTorch's Python side can load a package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aoti._processes import Channel, Child, ChildError
from aoti.diagnostics import check
from aoti.errors import ExportError
from aoti.package.package import Package

# What depends on the machine only: a package may be exported for another one.
_OF_THE_MACHINE = {"platform", "isa", "device", "gpu"}


def check_load(package: Path, name: str, scratch: Path, say: Callable[[str], None]) -> None:
    """Check a package as `aoti check` does, in a new process that does not import torch.

    Parameters
    ----------
    package : Path
        The package.
    name : str
        The name of the model.
    scratch : Path
        A directory for the extracted package.
    say : callable
        Called with a line of text.

    Raises
    ------
    ExportError
        The package cannot be loaded there: it calls an operator that only PyTorch's Python side
        has, for example. On a machine without the device, the package is checked, but not loaded.
    """
    say(f"loading {name} without torch")
    target = f"{__name__}:check_in_child"
    environment = {"AOTI_CACHE_DIR": str(scratch / "cache")}
    try:
        with Child(target, str(package), name, environment=environment) as child:
            problems = child.ask()
    except ChildError as error:
        problems = [str(error)]
    if problems:
        raise ExportError(
            f"the package of {name} cannot be loaded without torch: {problems[0]}\n"
            "change the code that needs it, or export with other options: preset='updatable' "
            "changes the least"
        )


def check_in_child(channel: Channel, package: str, name: str) -> None:
    """Check and load a package, and answer with the problems: one line each."""
    report = check(package, model_name=name)
    with Package(package) as opened:
        tolerated = set(_OF_THE_MACHINE)
        if opened.weights(name) == "missing":  # they are passed at the load
            tolerated.add("load")
    problems = [f for f in report.model_check if not f.ok and f.check not in tolerated]
    channel.answer([f"{problem.check}: {problem.message}" for problem in problems])
