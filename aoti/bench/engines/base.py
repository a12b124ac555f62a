"""The interface of engines: they load a model, and run it on numpy arrays."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aoti.bench.process.job import Inputs, Job

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from aoti.bench.process.timing import Call


class Engine(ABC):
    """An engine with its model. Each engine runs in its own process.

    Importing its module imports its libraries; the constructor loads the model.

    Parameters
    ----------
    job : Job
        The model to load.
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

        The inputs are converted to the engine's arrays here, not in the call.
        """

    @abstractmethod
    def answer(self, inputs: Inputs) -> list[Any]:
        """The results as numpy arrays, in flat order."""

    def bound(self, inputs: Inputs) -> Call:
        """The same as `call`, with inputs and outputs fixed."""
        raise NotImplementedError

    def submitter(self, inputs: Inputs) -> Callable[[], Future[Any]]:
        """A callable that queues a call, by default for as many threads as there are runners."""
        call, pool, context = self.call(inputs), self._pool, self.context

        def run() -> Any:
            with context():
                return call()

        return lambda: pool.submit(run)

    def context(self) -> AbstractContextManager[Any]:
        """The context that a thread must enter before it calls."""
        return contextlib.nullcontext()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # not part of a start, which is measured

        return ThreadPoolExecutor(self.job.runners)
