"""The program of a `Child`. It imports as little as it can: starts are measured."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from typing import IO, Any

from aoti._processes import end_with_parent
from aoti.bench.process.job import Failed, write
from aoti.errors import AotiError


class Channel:
    """The child's end: requests come in, answers go out."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests = requests
        self._answers = answers

    def receive(self) -> Any:
        """The next message; SystemExit if there will be none."""
        try:
            return pickle.load(self._requests)
        except EOFError:
            raise SystemExit from None

    def answer(self, message: object) -> None:
        """Answer the last one."""
        write(self._answers, message)
        self._answers.flush()


def find(target: str) -> Any:
    """What ``package.module:name`` stands for."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _failure(error: BaseException) -> Failed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, AotiError):
        try:
            pickle.dumps(error)
        except Exception:  # a note that holds what cannot be pickled
            return Failed("; ".join(lines))
        return Failed("; ".join(lines), error)
    return Failed(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}")


def _main(requests: int, answers: int, scratch: str) -> None:
    end_with_parent(scratch)
    with open(requests, "rb") as incoming, open(answers, "wb") as outgoing:
        channel = Channel(incoming, outgoing)
        try:
            target, arguments = channel.receive()
            find(target)(channel, *arguments)
        except SystemExit:
            pass
        except Exception as error:  # the engine's own, of any kind
            channel.answer(_failure(error))


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    os._exit(0)  # libraries' threads and exit handlers have nothing more to do
