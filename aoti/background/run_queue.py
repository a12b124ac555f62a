"""Runs in the background: a bounded queue with a few worker threads per model.

This module uses `concurrent.futures.Future`, but not `ThreadPoolExecutor`: the executor's queue is
unbounded, keeps cancelled calls until a worker takes them, and runs to its end before the
interpreter exits.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from aoti._logging import logger
from aoti.engine._core._waiting import wait
from aoti.errors import ModelClosedError, QueueFullError

if TYPE_CHECKING:
    from aoti.arrays.joined_calls import Answer, JoinedCalls, QueuedCall

Leaves = Sequence[object]
Outcome = tuple["Answer | None", BaseException | None]
_T = TypeVar("_T")

# All queues that have threads. Set operations are atomic.
_live: set[RunQueue] = set()
_exiting = False


class _Condition(type(threading.RLock()), threading.Condition):  # type: ignore[misc]
    """A condition that no signal handler leaves locked.

    The standard one enters its lock in Python code: where a handler raises between that and the
    body of the `with` statement, nobody gives the lock back. Here that is one step of the
    interpreter. It is reentrant: the garbage collector may drop a model anywhere.
    """

    def __init__(self) -> None:
        self._waiters: deque[Any] = deque()

    def wait(self, timeout: float | None = None) -> bool:
        return wait(self, timeout)


class QueuedRun(Future[Any]):
    """The future of a run: no signal handler leaves it locked, no callback ends its worker.

    Attributes
    ----------
    weights_version : int or None
        The version of the weights that the run used: see `ModelWeights.version`. None until there
        is a result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights_version: int | None = None
        self._condition = _Condition()

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:  # type: ignore[attr-defined]
            try:
                callback(self)
            except BaseException as error:
                # A signal handler raises in the main thread: that is for who cancels there.
                if not isinstance(error, Exception) and _in_main_thread():
                    raise
                logger.exception("a callback of a submitted run raised %r", error)


class _Worker(threading.Thread):
    """A worker thread. No signal handler that raises during its start leaves it waiting."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started._cond = _Condition()  # type: ignore[attr-defined]


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Load(NamedTuple):
    """What a queue does now, and what it has done."""

    running: int = 0  # submitted calls
    waiting: int = 0
    calls: int = 0  # that have run
    runs: int = 0  # that these took
    seconds: float = 0.0  # that these runs took in all
    sizes: Mapping[int, int] = {}  # how many runs had how many calls


class RunQueue:
    """The waiting runs of one model, and its worker threads.

    Parameters
    ----------
    call : callable
        ``call(leaves)`` returns the result of a run, and the version of the weights. It must not
        refer to the queue.
    workers : int
        The maximum number of threads. They are started when they are first needed.
    size : int
        How many runs may wait, in addition to those that the workers run.
    name : str
        The name of the model in messages and names of threads.
    joins : JoinedCalls, optional
        How runs with the same key become one; then each is submitted as a `QueuedCall`. They go
        when they have `max_rows`, or `max_delay` after the first came.

    Notes
    -----
    All methods may be called from any thread, by the garbage collector and by callbacks of futures.

    The threads are daemons: the exit of the interpreter must not wait until the queue is empty. But
    it must wait for the runs that are under way, since libtorch is unloaded next: a function that
    is registered with `atexit` does this.
    """

    def __init__(
        self,
        call: Callable[[Any], Answer],
        *,
        workers: int,
        size: int,
        name: str,
        joins: JoinedCalls | None = None,
    ) -> None:
        self._call = call
        self._joins = joins
        self._workers = workers
        self._size = size
        self._name = name
        self._ended: str | None = None
        self._forget()

    def _forget(self) -> None:
        """Reset to a state without threads and runs."""
        self._changed = _Condition()
        self._waiting: OrderedDict[QueuedRun, Any] = OrderedDict()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._busy = 0
        self._load = Load()
        self._sizes: Counter[int] = Counter()

    def submit(self, leaves: Leaves | QueuedCall) -> QueuedRun:
        """Queue a run.

        Raises
        ------
        QueueFullError
            The queue is full.
        ModelClosedError
            The queue was closed.
        """
        future = QueuedRun()
        with self._changed:
            if self._ended or _exiting:
                raise ModelClosedError(self._ended or "the interpreter is shutting down")
            if len(self._waiting) + self._busy >= self._size + self._workers:
                raise QueueFullError(
                    f"{self._name}: {self._size} runs are waiting already (queue_size); "
                    "wait for some of them, or load the model with more runners"
                )
            future.add_done_callback(self._withdraw)
            self._waiting[future] = leaves
            if self._idle < len(self._waiting):
                self._forget_dead()
                if len(self._threads) < self._workers:
                    self._start_worker(future)
            self._changed.notify()
        return future

    def load(self) -> Load:
        """What the queue does now, and what it has done."""
        with self._changed:
            return self._load._replace(waiting=len(self._waiting), sizes=dict(self._sizes))

    def _start_worker(self, future: QueuedRun) -> None:
        name = f"aoti {self._name} {len(self._threads)}"
        thread = _Worker(self._work, name)
        self._threads.add(thread)
        _live.add(self)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._threads.discard(thread)
            if not self._threads:
                _live.discard(self)
                del self._waiting[future]
                raise

    def _forget_dead(self) -> None:
        """Forget threads whose start a signal handler interrupted."""
        for thread in [thread for thread in self._threads if not thread.is_alive()]:
            self._threads.discard(thread)

    def _withdraw(self, future: Any) -> None:
        """Forget a run that was cancelled before a worker took it."""
        if future.cancelled():
            with self._changed:
                withdrawn = self._waiting.pop(future, None) is not None
            if withdrawn:
                future.set_running_or_notify_cancel()

    def close(self, reason: str = "the model was closed") -> None:
        """Refuse waiting and later runs; return when the runs that are under way have ended."""
        with self._changed:
            self._ended = reason
            waiting = list(self._waiting)
            self._waiting.clear()
            threads = self._threads - {threading.current_thread()}
            self._changed.notify_all()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(ModelClosedError(reason))
        for thread in threads:
            thread.join()

    def retire(self) -> None:
        """Let the threads end when no run waits any more. Returns at once."""
        with self._changed:
            self._ended = "the model was dropped"
            self._changed.notify_all()

    def _work(self) -> None:
        while taken := self._next():
            runs = [(f, leaves) for f, leaves in taken if f.set_running_or_notify_cancel()]
            start = time.perf_counter()
            outcomes = self._outcomes([leaves for _, leaves in runs])
            self._count_ended(len(taken), len(runs), time.perf_counter() - start)
            while runs:
                (future, _), (answer, error) = runs.pop(0), outcomes.pop(0)
                if answer is not None:
                    result, future.weights_version = answer
                    future.set_result(result)
                    del result
                else:
                    future.set_exception(error)
                del future, _, answer, error
            del taken  # keep nothing alive until the next run

    def _count_ended(self, taken: int, ran: int, seconds: float) -> None:
        # Before the futures are done: who waits for one may queue the next run at once.
        with self._changed:
            self._busy -= 1
            running, waiting, calls, runs, total, _ = self._load
            if ran:
                runs += 1
                self._sizes[ran] += 1
            self._load = Load(running - taken, waiting, calls + ran, runs, total + seconds)

    def _outcomes(self, items: list[Any]) -> list[Outcome]:
        """The result or the error of each of the runs that go together."""
        if self._joins is not None and len(items) > 1:
            answers, error = _outcome(self._joins.call_together, items)
            if answers is not None:
                return [(answer, None) for answer in answers]
            logger.info("%s: joined calls are run one at a time: %s", self._name, error)
        return [_outcome(self._call, leaves) for leaves in items]

    def _next(self) -> list[tuple[QueuedRun, Any]]:
        """What to run next, as one; nothing if there is no more to come."""
        with self._changed:
            while True:
                ready, pause = self._ready()
                # The garbage collector may have cancelled some of them by now.
                taken = [(f, run) for f in ready if (run := self._waiting.pop(f, None)) is not None]
                if taken:
                    break
                if self._ended and not self._waiting:
                    self._threads.discard(threading.current_thread())
                    if not self._threads:
                        _live.discard(self)
                    return []
                if not ready:
                    self._idle += 1
                    try:
                        self._changed.wait(pause)
                    finally:
                        self._idle -= 1
            self._busy += 1
            self._load = self._load._replace(running=self._load.running + len(taken))
            if self._joins is not None and self._waiting:
                self._changed.notify()  # another worker is to look when those can go
            return taken

    def _ready(self) -> tuple[list[QueuedRun], float | None]:
        """The runs that can go now as one; if none can, how long to wait for that."""
        if (joins := self._joins) is None:
            return [future for future, _ in zip(self._waiting, range(1), strict=False)], None
        waiting = list(self._waiting)
        runs = [(f, run) for f in waiting if (run := self._waiting.get(f)) is not None]
        if not runs:
            return [], None
        _, oldest = runs[0]
        left = oldest.since + joins.max_delay - time.monotonic()
        over = left <= 0 or self._ended is not None
        groups: defaultdict[Hashable, list[QueuedRun]] = defaultdict(list)
        rows: defaultdict[Hashable, int] = defaultdict(int)
        for future, run in runs:
            if over and run.key != oldest.key:
                continue
            group = groups[run.key]
            rows[run.key] += run.rows
            if not group or rows[run.key] <= joins.max_rows:
                group.append(future)
            if run.key is None or rows[run.key] >= joins.max_rows:
                return group, None
        return (groups[oldest.key], None) if over else ([], left)


def _outcome(call: Callable[[Any], _T], leaves: Any) -> tuple[_T | None, BaseException | None]:
    # A separate frame: a frame that also has the future would form a cycle with the traceback.
    try:
        return call(leaves), None
    except BaseException as error:
        return None, error


def _end_all() -> None:
    global _exiting  # noqa: PLW0603
    _exiting = True
    for queue in list(_live):
        queue.close("the interpreter is shutting down")


def _forget_all() -> None:
    """In a forked child: the threads of the parent are missing, and their locks stay locked."""
    for queue in list(_live):
        queue._forget()
    _live.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)
