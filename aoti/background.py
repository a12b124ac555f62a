"""A model's calls that do not wait: in threads of its own, and for event loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aoti.run_queue import result_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from aoti.arrays.validation import Flatten
    from aoti.run_queue import RunQueue


class CallsInBackground:
    """What `AOTIModel` offers to threads and event loops."""

    timeout: float | None
    _flatten: Flatten
    _queued: Callable[[Any], Any] | None
    _queue: RunQueue

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the model in the background.

        At most `num_runners` submitted calls run at a time, in threads of the model's own, and
        `queue_size` wait, in the order they came. They share the runners with all other calls.

        Parameters
        ----------
        *args, **kwargs
            As for a call. Their structure is checked here, in the caller's thread; the arrays are
            looked at when their turn comes. Do not write to them until the future is done.

        Returns
        -------
        concurrent.futures.Future
            Of the result, or of the error that the call would raise. Cancelled while it waits, it
            gives its place to another one; once it runs, it cannot be cancelled.

        Raises
        ------
        InputError, InputTypeError, PackageError
            As for a call, where the structure of the arguments is concerned.
        QueueFullError
            As many calls wait as may.
        ModelClosedError
            The model was closed, or the interpreter is shutting down.
        """
        leaves: Any = self._flatten(args, kwargs)
        return self._queue.submit(leaves if self._queued is None else self._queued(leaves))

    async def run_async(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the model without blocking the event loop.

        As `submit`, and waits for the result. Arguments are the model's own, so there is no option
        for a limit of time among them: that is the attribute `timeout`, or ``asyncio.timeout``
        around a single call. Cancelled or out of time, this ends at once: a call that waits is
        withdrawn, and one that runs goes on in the background, its arrays kept alive, its result
        dropped. So do not reuse their memory after a timeout or a cancellation.

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
