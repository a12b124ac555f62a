"""Child processes that end with their parent, however it went, and take their files along.

It imports as little as it can: starts of such processes are measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading


def end_with_parent(scratch: str) -> None:
    """Start a thread that ends this process' group when its parent is gone.

    Standard input is the reading end of a pipe that the parent holds open, and never writes to.
    The process must lead a group of its own.

    Parameters
    ----------
    scratch : str
        A directory to remove when all of the group have ended; may be empty.
    """
    threading.Thread(target=_wait, args=(scratch,), daemon=True).start()


def _wait(scratch: str) -> None:
    os.read(0, 1)  # nothing ever comes but the end
    group = os.getpgrp()
    child = -1
    if scratch:
        with contextlib.suppress(OSError):  # no memory for another process: the files stay
            child = os.fork()
    if child > 0:
        return  # what removes the files ends this group
    if child == 0:
        os.setsid()  # outside the group, to outlive all who may still write there
    os.killpg(group, signal.SIGKILL)
    _remove(scratch, group)
    os._exit(0)


def _remove(scratch: str, group: int) -> None:
    import shutil
    import time

    patience = time.monotonic() + 5
    try:
        while time.monotonic() < patience:
            os.killpg(group, 0)
            time.sleep(0.01)
    except ProcessLookupError:
        pass
    shutil.rmtree(scratch, ignore_errors=True)
