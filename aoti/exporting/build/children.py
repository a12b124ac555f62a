"""Processes that do a part of an export, each in its own directory.

Compiling takes some hundred megabytes and leaves threads, worker processes and mapped libraries
behind. All of that ends with the child.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aoti._processes import Child
from aoti.exporting.error_messages import cause, explain

_POLL = 0.2  # seconds


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for intermediate files, which is removed at the end.

    Raises
    ------
    ExportError
        The disk is full, or the temporary directory cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="aoti-export-") as name:
            yield Path(name)
    except OSError as error:
        raise explain(error, f"write to {tempfile.gettempdir()}") from cause(error)


def run_child(
    target: str, directory: Path, stage: Callable[[], str], say: Callable[[str], None]
) -> Any:
    """Run a function in a child process.

    Parameters
    ----------
    target : str
        ``package.module:function``. It is called with a `Channel` and `directory`,
        and answers once.
    directory : Path
        What the child needs, and where its files go. It must be in a scratch directory, which the
        child removes if this process is killed.
    stage : callable
        Returns how far the child has come.
    say : callable
        Called with that when it changes.

    Returns
    -------
    Any
        The answer of the child.

    Raises
    ------
    ChildError
        It failed or died.
    """
    with Child(target, directory, scratch=str(directory.parent)) as child:
        said = ""
        while not child.is_ready(_POLL):
            if said != (now := stage()):
                said = now
                say(said)
        return child.ask()
