"""Child processes that work for this one: they get messages, answer, and end with their parent.

A child leads its own session, so that Ctrl-C reaches the parent only. The child holds the reading
end of a pipe that closes when the parent is gone, however it ended; then the child, everything
that it started and its scratch directory go, too.

This module is also the program of a child. It imports as little as it can: starts are measured.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, Any, NamedTuple, Self

from aoti.errors import AotiError


class ChildError(AotiError, RuntimeError):
    """A child failed or died. The message is the reason, in one line.

    Attributes
    ----------
    killed : bool
        Whether the system killed it, as happens when memory runs out.
    log : str
        What it wrote to standard output and standard error.
    """

    def __init__(self, reason: str, *, killed: bool = False, log: str = "") -> None:
        super().__init__(reason)
        self.killed = killed
        self.log = log


class Failed(NamedTuple):
    """The answer of a child that could not do its work.

    Attributes
    ----------
    reason : str
        In one line.
    error : Exception or None
        The error, if `aoti` raised it.
    """

    reason: str
    error: Exception | None = None


class Child:
    """A process that runs a function.

    Parameters
    ----------
    target : str
        ``package.module:function``. It is called with a `Channel` and `arguments`.
    *arguments
        Anything that can be pickled.
    environment : mapping of str to str, optional
        Variables in addition to those of this process.
    scratch : str, optional
        A directory that is removed if the parent is killed.
    path : sequence of str, optional
        Directories to look for modules in, before those of this process.

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
        import subprocess
        import tempfile

        with contextlib.ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            theirs, ours = os.pipe()
            stack.callback(os.close, theirs)
            self._requests = stack.enter_context(os.fdopen(ours, "wb"))
            ours, answers = os.pipe()
            stack.callback(os.close, answers)
            self._answers = stack.enter_context(os.fdopen(ours, "rb"))
            command = [sys.executable, "-W", "ignore", "-m", "aoti._processes"]
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
            The child failed, with the reason that it gives, or died. If `aoti` raised an error in
            it, that is the cause.
        """
        if message is not None:
            self.send(message)
        try:
            answer = pickle.load(self._answers)
        except EOFError:
            raise self._death() from None
        if isinstance(answer, Failed):
            raise ChildError(answer.reason, log=self._read_log()) from answer.error
        return answer

    def is_ready(self, seconds: float) -> bool:
        """Wait for an answer, or for the end of the child, for so many seconds at most."""
        import select

        if self._process.poll() is None:
            readable, _, _ = select.select([self._answers], [], [], seconds)
            return bool(readable)
        self._end_group()  # processes that it forked would keep its end of the pipe open
        return True

    def send(self, message: object) -> None:
        """Send a message."""
        with contextlib.suppress(BrokenPipeError):  # its last answer, or its log, says why
            write(self._requests, message)
            self._requests.flush()

    def end(self) -> None:
        """End the child and all processes that it started. A second call is harmless."""
        if self._process.returncode is None:
            self._end_group()
            self._process.wait()
        assert self._process.stdin is not None
        for file in (self._requests, self._answers, self._log, self._process.stdin):
            with contextlib.suppress(BrokenPipeError):
                file.close()

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read_log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _death(self) -> ChildError:
        code, log = self._process.wait(), self._read_log()
        last = next((line.strip() for line in reversed(log.split("\n")) if line.strip()), "")
        reason = last or f"its process ended with exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as happens when memory runs out" if code == -signal.SIGKILL else ""
            reason = f"its process was ended by {name}{hint}{f': {last}' if last else ''}"
        return ChildError(reason, killed=code == -signal.SIGKILL, log=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Channel:
    """The child's end: requests come in, answers go out."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests = requests
        self._answers = answers

    def receive(self) -> Any:
        """The next message; SystemExit if there are no more."""
        try:
            return pickle.load(self._requests)
        except EOFError:
            raise SystemExit from None

    def answer(self, message: object) -> None:
        """Answer the last message."""
        write(self._answers, message)
        self._answers.flush()


def find(target: str) -> Any:
    """The object that ``package.module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def write(file: IO[bytes], message: object) -> None:
    """Pickle a message, with its arrays in the memory layout that they have."""
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(message)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if (np := sys.modules.get("numpy")) is None:
            return NotImplemented
        if not isinstance(obj, np.ndarray) or obj.flags.c_contiguous or not obj.size:
            return NotImplemented
        extent = 1 + sum((n - 1) * s for n, s in zip(obj.shape, obj.strides, strict=True)) // (
            obj.itemsize
        )
        flat = np.lib.stride_tricks.as_strided(obj, (extent,), (obj.itemsize,))
        return _strided, (flat.copy(), obj.shape, obj.strides)


def _strided(memory: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    import numpy as np

    return np.lib.stride_tricks.as_strided(memory, shape, strides)


def end_with_parent(scratch: str) -> None:
    """Start a thread that ends this process and its group when its parent is gone.

    Standard input must be the reading end of a pipe that the parent keeps open and never writes
    to. The process must lead its group.

    Parameters
    ----------
    scratch : str
        A directory to remove after the whole group has ended; may be empty.
    """
    threading.Thread(target=_wait, args=(scratch,), daemon=True).start()


def _wait(scratch: str) -> None:
    os.read(0, 1)  # it only ever ends
    group = os.getpgrp()
    child = -1
    if scratch:
        with contextlib.suppress(OSError):  # no memory for another process: the files stay
            child = os.fork()
    if child > 0:
        return  # the process that removes the files ends this group
    if child == 0:
        os.setsid()  # outside the group, to outlive all processes that may still write there
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


def _failure(error: BaseException) -> Failed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, AotiError):
        try:
            pickle.dumps(error)
        except Exception:  # it holds something that cannot be pickled
            return Failed("; ".join(lines))
        return Failed("; ".join(lines), error)
    return Failed(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}")


def serve(requests: int, answers: int, scratch: str) -> None:
    """Do the work of a child: call the function that the first message names."""
    end_with_parent(scratch)
    for pipe in (requests, answers):
        os.set_inheritable(pipe, False)
    with open(requests, "rb") as incoming, open(answers, "wb") as outgoing:
        channel = Channel(incoming, outgoing)
        try:
            target, arguments = channel.receive()
            find(target)(channel, *arguments)
        except SystemExit:
            pass
        except Exception as error:  # of whatever libraries it uses
            import traceback

            traceback.print_exc()
            channel.answer(_failure(error))


if __name__ == "__main__":
    # Under its own name: what the child answers must be found by that name in the parent.
    from aoti._processes import serve as _serve

    _serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    os._exit(0)  # libraries' threads and exit handlers have nothing more to do
