"""Calls in the background: how a model queues them, and waits for them in an event loop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from aoti.background.run_queue import Leaves, QueuedRun, RunQueue
from aoti.errors import InputTypeError, RunTimeoutError
from aoti.options import check_timeout
from aoti.protocol import InferenceResult


class QueuedCalls:
    """The calls of a model that do not wait: in worker threads, and for event loops."""

    _timeout: float | None
    _flatten: Callable[[tuple[object, ...], dict[str, object]], Leaves]
    _flatten_result: Callable[[Any], list[object]]
    _queued: Callable[[Any], Any] | None = None
    _queue: RunQueue

    @property
    def timeout(self) -> float | None:
        """Seconds that a `run_async` may take, including the time it waits; None: no limit.

        Raises
        ------
        ConfigError
            It is set to what is not above 0.
        """
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        check_timeout(seconds)
        self._timeout = seconds

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the model in the background.

        At most `num_runners` submitted calls run at a time, in the model's worker threads, and
        `queue_size` wait, in the order in which they came. They share the runners with all other
        calls.

        Parameters
        ----------
        *args, **kwargs
            As for a call. Their structure is checked here, in the caller's thread. The arrays are
            checked when the call runs, and with `batching` here, too. Do not write to them until
            the future is done.

        Returns
        -------
        concurrent.futures.Future
            Of the result, or of the error that the call would raise. A future that is cancelled
            while it waits leaves the queue; once it runs, it cannot be cancelled.

        Raises
        ------
        InputError, InputTypeError, PackageError
            As for a call, if the structure of the arguments is wrong; with `batching`, if
            anything is.
        QueueFullError
            The queue is full.
        ModelClosedError
            The model was closed, or the interpreter is shutting down.
        """
        return self._submit(self._flatten(args, kwargs))

    def _submit(self, leaves: Leaves) -> QueuedRun:
        return self._queue.submit(leaves if self._queued is None else self._queued(leaves))

    async def run_async(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the model without blocking the event loop: `submit`, and wait for the result.

        All arguments are the model's, so the time limit is not one of them: set the attribute
        `timeout`, or put ``asyncio.timeout`` around a call. When cancelled or out of time, this
        method returns at once: a waiting call is withdrawn, and a running one continues in the
        background, keeps its arrays alive, and its result is dropped. So do not reuse their memory
        after a timeout or a cancellation.

        Returns
        -------
        object
            As for a call.

        Raises
        ------
        RunTimeoutError
            It took longer than `timeout`.
        InputError, InputTypeError, ExecutionError, ModelClosedError, PackageError, QueueFullError
            As for a call and for `submit`.
        """
        return await result_of(self.submit(*args, **kwargs), self.timeout)

    async def infer_async(self, inputs: Sequence[Any]) -> InferenceResult:
        """Run on a flat sequence of arrays without blocking the event loop, and measure the run.

        It is `run_async` with the arguments and the result of `infer`. The time includes the time
        that the run waits in the queue. The memory is not measured.

        Parameters
        ----------
        inputs : sequence of arrays
            One per tensor, in the order of the input treespec.

        Returns
        -------
        InferenceResult
            The outputs, with the time and the version of the weights.

        Raises
        ------
        RunTimeoutError
            It took longer than `timeout`.
        InputError, InputTypeError, ExecutionError, ModelClosedError, QueueFullError
            As for a call and for `submit`.
        """
        if not isinstance(inputs, (list, tuple)):
            raise InputTypeError(
                f"infer_async takes a list of arrays, got {type(inputs).__name__}; call run_async "
                "to pass arguments as exported"
            )
        start = time.perf_counter_ns()
        run = self._submit(inputs)
        outputs = self._flatten_result(await result_of(run, self.timeout))
        latency_ms = (time.perf_counter_ns() - start) / 1e6
        assert run.weights_version is not None
        return InferenceResult(outputs, latency_ms, None, run.weights_version)


async def result_of(future: Future[Any], timeout: float | None) -> Any:
    """Wait for a run in an event loop.

    When cancelled or out of time, it returns at once: a waiting run is withdrawn; a run that is
    under way ends in the background, keeps its arrays alive, and its result is dropped.

    Raises
    ------
    RunTimeoutError
        It took longer than `timeout` seconds.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    in_time = loop.create_future()

    def settle(answer: bool) -> None:
        if not in_time.done():
            in_time.set_result(answer)

    def deliver(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, so nobody waits
            loop.call_soon_threadsafe(settle, True)

    timer = None
    if timeout is not None:  # an event loop fails with an int that is larger than any float
        timer = loop.call_later(min(timeout, threading.TIMEOUT_MAX), settle, False)
    future.add_done_callback(deliver)
    try:
        if await in_time:
            return future.result()
        left = "it was withdrawn" if future.cancel() else "it ends in the background"
        raise RunTimeoutError(f"the run took more than {timeout} s; {left}")
    finally:
        if timer is not None:
            timer.cancel()
        future.cancel()
        del future  # otherwise it and its error would keep each other alive through this frame
