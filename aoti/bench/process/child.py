"""A process of our own: started, told what to do, and ended with all that it started.

It is the leader of a session, so that Ctrl-C is for the parent alone. It ends with its parent,
however that went: the reading end of a pipe that closes then is its standard input.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Self

from aoti.bench.process.job import Failed, write
from aoti.errors import AotiError


class ChildError(AotiError, RuntimeError):
    """A child failed or died. The message is the reason, in a line."""


class Child:
    """A process that runs a function of ours.

    Parameters
    ----------
    target : str
        ``package.module:function``. It is called with a `Channel` and `arguments`.
    *arguments
        What can be pickled.
    environment : mapping of str to str, optional
        On top of this process's.
    scratch : str, optional
        A directory that goes if the parent is killed.
    path : sequence of str, optional
        Where it looks for modules before it looks where this process does.

    Attributes
    ----------
    started_ns : int
        When it was started, as `time.perf_counter_ns` counts in all processes.
    """

    def __init__(
        self,
        target: str,
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
        scratch: str = "",
        path: tuple[str, ...] = (),
    ) -> None:
        entries = [*path, *(entry for entry in sys.path if entry)]
        variables = {**os.environ, **(environment or {})}
        variables |= {"PYTHONPATH": os.pathsep.join(entries), "PYTHONSAFEPATH": "1"}
        with contextlib.ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            theirs, ours = os.pipe()
            stack.callback(os.close, theirs)
            self._requests = stack.enter_context(os.fdopen(ours, "wb"))
            ours, answers = os.pipe()
            stack.callback(os.close, answers)
            self._answers = stack.enter_context(os.fdopen(ours, "rb"))
            command = [sys.executable, "-W", "ignore", "-m", "aoti.bench.process.worker"]
            self.started_ns = time.perf_counter_ns()
            self._process = subprocess.Popen(
                [*command, str(theirs), str(answers), scratch],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                env=variables,
                pass_fds=(theirs, answers),
                start_new_session=True,
            )
            stack.pop_all()
        os.close(theirs)
        os.close(answers)
        try:
            self.send((target, arguments))
        except BaseException:
            self.end()
            raise

    def ask(self, message: object = None) -> Any:
        """Send a message, unless it is None, and wait for the answer.

        Raises
        ------
        ChildError
            It failed, with the reason that it gives, or died. What `aoti` raised in it is the
            error's cause.
        """
        if message is not None:
            self.send(message)
        try:
            answer = pickle.load(self._answers)
        except EOFError:
            raise ChildError(self._death()) from None
        if isinstance(answer, Failed):
            raise ChildError(answer.reason) from answer.error
        return answer

    def send(self, message: object) -> None:
        """Send a message."""
        with contextlib.suppress(BrokenPipeError):  # its last answer, or its log, says why
            write(self._requests, message)
            self._requests.flush()

    def end(self) -> None:
        """End it, and what it started. Harmless the second time."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdin is not None
        for file in (self._requests, self._answers, self._log, self._process.stdin):
            with contextlib.suppress(BrokenPipeError):
                file.close()

    def _death(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as happens when memory runs out" if code == -signal.SIGKILL else ""
            return f"its process was ended by {name}{hint}{f': {last}' if last else ''}"
        return last or f"its process ended with exit code {code}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
