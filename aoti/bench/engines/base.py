"""What an engine is: something that loads a model, and runs it on numpy arrays."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aoti.bench.process.job import Inputs, Job

if TYPE_CHECKING:
    from aoti.bench.process.timing import Call


class Engine(ABC):
    """An engine with its model, in a process of its own.

    Its module imports its libraries; making it loads the model.

    Parameters
    ----------
    job : Job
        What to load.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    @property
    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The versions of its libraries."""

    @abstractmethod
    def call(self, inputs: Inputs) -> Call:
        """A callable without parameters that runs the model as its users do.

        Arrays are of the engine's own kind: they are made here, not when it is called.
        """

    @abstractmethod
    def answer(self, inputs: Inputs) -> list[Any]:
        """The results as numpy arrays, in flat order."""

    def bound(self, inputs: Inputs) -> Call:
        """The same as `call`, with inputs and outputs fixed."""
        raise NotImplementedError

    def submitter(self, inputs: Inputs) -> Callable[[], Future[Any]]:
        """A callable that queues a call: here for as many threads as there are runners."""
        call, pool, context = self.call(inputs), self._pool, self.context

        def run() -> Any:
            with context():
                return call()

        return lambda: pool.submit(run)

    def context(self) -> AbstractContextManager[Any]:
        """What a thread has to be in to call."""
        return contextlib.nullcontext()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.job.runners)
