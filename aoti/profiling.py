"""Recording how long calls take, for a callback, statistics or a trace viewer.

>>> trace = aoti.Trace()
>>> model = trace.watch(aoti.load("minilm.pt2"))
>>> with trace.span("request"):
...     model(input_ids=ids, attention_mask=mask)
>>> trace.save("trace.json")  # for chrome://tracing, or https://ui.perfetto.dev

Models that are not watched are not slowed down.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aoti._files import replacing

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import TracebackType

    from aoti.model import AOTIModel
    from aoti.protocol import InferenceResult, ModelRunner
    from aoti.signature.spec import TensorSpec

# Methods of which several calls of one thread can be under way.
_OVERLAPPING = ("submit", "run_async", "infer_async")


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call of a model, or a span of the application, after it ended.

    Attributes
    ----------
    name : str
        The name of the model or the span.
    method : str
        ``call``, ``run``, ``boxed_run``, ``infer``, ``bound``, ``submit``, ``run_async``,
        ``infer_async`` or ``span``.
    start_ns : int
        The start, by `time.perf_counter_ns`.
    duration_ns : int
        How long it took, including the time it waited for a runner and in a queue.
    thread : int
        The identifier of the thread that called.
    thread_name : str
        Its name.
    error : str or None
        The type of the error that it raised.
    """

    name: str
    method: str
    start_ns: int
    duration_ns: int
    thread: int
    thread_name: str
    error: str | None


class Trace:
    """Records the calls of the models that it watches.

    Parameters
    ----------
    callback : callable, optional
        Called with each `CallRecord`, in the thread in which the call ended. An error that it
        raises is raised by the call.
    limit : int, default 100_000
        How many records are stored; the oldest are dropped first.

    Notes
    -----
    All methods may be called from any thread.
    """

    def __init__(
        self, callback: Callable[[CallRecord], object] | None = None, *, limit: int = 100_000
    ) -> None:
        self._records: deque[CallRecord] = deque(maxlen=limit)
        self._callback = callback

    @property
    def records(self) -> list[CallRecord]:
        """The stored records, in the order in which the calls ended."""
        return list(self._records)

    def watch(self, model: ModelRunner, name: str | None = None) -> TracedModel:
        """The same model with recorded calls; `name` is its name in the records."""
        return TracedModel(model, self, name or str(getattr(model, "model_name", "model")))

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Record how long a ``with`` block takes, to see calls in their context."""
        end = self._begin(name, "span")
        with _noting(end):
            yield

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the records as a Chrome trace. The file is complete or not there.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        process, records = os.getpid(), self.records
        names = {record.thread: record.thread_name for record in records}
        events: list[dict[str, Any]] = [
            {
                "ph": "M",
                "name": "thread_name",
                "pid": process,
                "tid": thread,
                "args": {"name": name},
            }
            for thread, name in names.items()
        ]
        for number, record in enumerate(records):
            events += _events(record, process, number)
        with replacing(Path(path)) as partial, partial.open("w", encoding="utf-8") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)

    def _begin(self, name: str, method: str) -> Callable[[str | None], None]:
        """Start a record. The returned function ends it, with the type of an error or None."""
        thread = threading.current_thread()
        start = time.perf_counter_ns()

        def end(error: str | None) -> None:
            duration = time.perf_counter_ns() - start
            record = CallRecord(
                name, method, start, duration, thread.ident or 0, thread.name, error
            )
            self._records.append(record)
            if self._callback is not None:
                self._callback(record)

        return end


class TracedModel:
    """A model whose calls are recorded: an `aoti.ModelRunner`. Made by `Trace.watch`.

    All other attributes are those of the model.
    """

    def __init__(self, model: ModelRunner, trace: Trace, name: str) -> None:
        self._model = model
        self._begin = trace._begin
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name == "_model":  # not set yet, in copies and pickles
            raise AttributeError(name)
        return getattr(self._model, name)

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """As for the model."""
        return self._model.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """As for the model."""
        return self._model.outputs

    @property
    def closed(self) -> bool:
        """As for the model."""
        return self._model.closed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as the exported module was called."""
        with _noting(self._begin(self._name, "call")):
            return self._model(*args, **kwargs)

    def run(self, inputs: Sequence[Any], **options: Any) -> list[Any]:
        """Run on a flat sequence of arrays."""
        with _noting(self._begin(self._name, "run")):
            return self._model.run(inputs, **options)

    def boxed_run(self, inputs: list[Any], **options: Any) -> list[Any]:
        """Run on a flat list of arrays and empty it."""
        with _noting(self._begin(self._name, "boxed_run")):
            return self._model.boxed_run(inputs, **options)

    def infer(self, inputs: Sequence[Any], **options: Any) -> InferenceResult:
        """Run on a flat sequence of arrays and measure it."""
        with _noting(self._begin(self._name, "infer")):
            return self._model.infer(inputs, **options)

    def bind(self, /, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """Fix the inputs, as `AOTIModel.bind`; each call of the result is recorded."""
        bound = cast("AOTIModel", self._model).bind(*args, **kwargs)

        def call() -> Any:
            with _noting(self._begin(self._name, "bound")):
                return bound()

        return call

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the model in the background. The record ends when the future is done."""
        end = self._begin(self._name, "submit")
        try:
            future = self._model.submit(*args, **kwargs)
        except BaseException as error:
            end(type(error).__name__)
            raise
        future.add_done_callback(lambda done: end(_error_of(done)))
        return future

    async def run_async(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the model without blocking the event loop."""
        with _noting(self._begin(self._name, "run_async")):
            return await self._model.run_async(*args, **kwargs)

    async def infer_async(self, inputs: Sequence[Any]) -> InferenceResult:
        """Run on a flat sequence of arrays without blocking the event loop, and measure it."""
        with _noting(self._begin(self._name, "infer_async")):
            return await cast("AOTIModel", self._model).infer_async(inputs)

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def __enter__(self) -> TracedModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _noting:  # noqa: N801  (takes a third of the time of contextlib's)
    """End a record when a ``with`` block ends."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[str | None], None]) -> None:
        self._end = end

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(None if kind is None else kind.__name__)


def _error_of(future: Future[Any]) -> str | None:
    if future.cancelled():
        return CancelledError.__name__
    error = future.exception()
    return None if error is None else type(error).__name__


def _events(record: CallRecord, process: int, number: int) -> list[dict[str, Any]]:
    common = {
        "name": record.name,
        "cat": record.method,
        "pid": process,
        "tid": record.thread,
        "args": {"method": record.method, **({"error": record.error} if record.error else {})},
    }
    start, duration = record.start_ns / 1e3, record.duration_ns / 1e3
    if record.method in _OVERLAPPING:
        begin = {**common, "ph": "b", "id": number, "ts": start}
        return [begin, {**common, "ph": "e", "id": number, "ts": start + duration}]
    return [{**common, "ph": "X", "ts": start, "dur": duration}]
