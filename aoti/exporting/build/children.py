"""Processes that do a part of an export, each in a directory of its own.

Compiling takes some hundred megabytes and leaves threads, worker processes and mapped libraries
behind. All of that ends with the child. The child ends with its parent, too, and takes the scratch
directory along: it holds the reading end of a pipe that closes when the parent is gone, however it
went.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aoti._processes import end_with_parent
from aoti.exporting.error_messages import cause, explain

_POLL = 0.2  # seconds
_RESULT, _LOG = "result.json", "log"


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for what is made on the way, gone at the end.

    Raises
    ------
    ExportError
        The disk is full, or there is no place for it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="aoti-export-") as name:
            yield Path(name)
    except OSError as error:
        raise explain(error, f"write to {tempfile.gettempdir()}") from cause(error)


class ChildFailed(Exception):
    """A child ended without a result.

    Attributes
    ----------
    killed : bool
        By the system, as happens when memory runs out.
    log : str
        What it wrote.
    """

    def __init__(self, code: int, log: str) -> None:
        lines = [line for line in log.splitlines() if line.strip()]
        super().__init__(lines[-1] if lines else f"exit code {code}")
        self.killed = code == -signal.SIGKILL
        self.log = log


def run_child(
    module: str, directory: Path, stage: Callable[[], str], say: Callable[[str], None]
) -> Any:
    """Run a module that calls `child_main`, to its end.

    Parameters
    ----------
    module : str
        Its name.
    directory : Path
        Holds what the child needs, and what it makes. It stands in a scratch directory.
    stage : callable
        Tells how far the child has come.
    say : callable
        Is told when that changes.

    Returns
    -------
    Any
        What the child gave, out of JSON.

    Raises
    ------
    ChildFailed
        There is no result.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with (directory / _LOG).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", module, str(directory)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is for us, and what the child starts is ended with it
        )
        try:
            said = ""
            while child.poll() is None:
                if said != (now := stage()):
                    said = now
                    say(said)
                time.sleep(_POLL)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert child.stdin is not None
            child.stdin.close()
    try:
        return json.loads((directory / _RESULT).read_text())
    except (OSError, ValueError):
        said = (directory / _LOG).read_text(errors="replace")
        raise ChildFailed(child.returncode, said) from None


# -- in the child ----------------------------------------------------------------------------------


def child_main(work: Callable[[Path], Any]) -> None:
    """Do the work of a child, and end the process.

    Parameters
    ----------
    work : callable
        Gets the directory, and gives what becomes JSON.
    """
    directory = Path(sys.argv[1])
    end_with_parent(str(directory.parent))  # the whole scratch directory
    result = work(directory)
    partial = directory / f"{_RESULT}.partial"
    partial.write_text(json.dumps(result))
    partial.replace(directory / _RESULT)
    sys.stdout.flush()
    os._exit(0)  # Inductor's worker processes and exit handlers have nothing more to do
