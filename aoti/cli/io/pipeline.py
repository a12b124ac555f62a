"""Many calls of a model, several at a time, joined if possible, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aoti.arrays.batching import differ, same
from aoti.cli.io.input_stream import Request
from aoti.errors import AotiError, ConfigError, ModelClosedError

if TYPE_CHECKING:
    from aoti.arrays.batching import Batches
    from aoti.model import AOTIModel

Outcome = list[Any] | AotiError

DEFAULT_ROWS = 32  # rows of a joined call, if the model accepts that many


class Stream:
    """Runs requests on a model.

    Parameters
    ----------
    model : AOTIModel
        The model. `num_runners` calls run at the same time.
    rows : int, optional
        How many rows a joined call may have; 1 joins nothing. Default: as the model accepts, up
        to 32.

    Attributes
    ----------
    runs : int
        How many calls of the model were made.
    warning : str or None
        Why calls are no longer joined.

    Raises
    ------
    ConfigError
        The model does not accept that many rows.
    """

    def __init__(self, model: AOTIModel, batches: Batches | None, rows: int | None) -> None:
        most = None if batches is None else batches.max_rows
        if rows is not None and rows > 1 and batches is None:
            raise ConfigError(
                "calls of this model cannot be joined: the package does not describe a dynamic "
                "first dimension that all inputs and outputs share; leave out --batch"
            )
        if rows is not None and most is not None and rows > most:
            raise ConfigError(f"the model accepts at most {most} rows, not {rows}")
        self._model = model
        self._rows = rows or min(DEFAULT_ROWS, most or DEFAULT_ROWS)
        self._batches = batches if self._rows > 1 else None
        self._proven = False
        self.runs = 0
        self.warning: str | None = None

    def results(self, requests: Iterable[Request | None]) -> Iterator[tuple[Request, Outcome]]:
        """Every request with its outputs, or with its error, in order.

        Only requests that run or wait for a runner are held in memory. If the next request is not
        there yet (None), all results are yielded before waiting for it.
        """
        running: deque[tuple[list[Request], Future[list[Outcome]]]] = deque()
        workers = self._model.num_runners
        with ThreadPoolExecutor(workers, "aoti infer") as pool:
            try:
                for group in self._groups(requests):
                    # The first joined call shows whether calls can be joined.
                    wait_for_all = not group or (len(group) > 1 and not self._proven)
                    if group:
                        running.append((group, pool.submit(self._run, group)))
                    while running and (wait_for_all or len(running) > workers):
                        done, future = running.popleft()
                        yield from zip(done, future.result(), strict=True)
                while running:
                    done, future = running.popleft()
                    yield from zip(done, future.result(), strict=True)
            finally:
                for _, future in running:
                    future.cancel()

    def _groups(self, requests: Iterable[Request | None]) -> Iterator[list[Request]]:
        """Groups of requests to join; an empty group if the next request is not there yet."""
        group, key, rows = list[Request](), None, 0
        for request in requests:
            if request is None:
                if group:
                    yield group
                yield []
                group, key, rows = [], None, 0
                continue
            own = self._key(request)
            own_rows = 0 if own is None else self._rows_of(request)
            if group and (own is None or own != key or rows + own_rows > self._rows):
                yield group
                group, rows = [], 0
            group.append(request)
            key, rows = own, rows + own_rows
        if group:
            yield group

    def _key(self, request: Request) -> Hashable:
        if self._batches is None or request.error is not None:
            return None
        return self._batches.key(request.inputs)

    def _rows_of(self, request: Request) -> int:
        return (self._batches and self._batches.rows(request.inputs)) or 0

    def _run(self, group: Sequence[Request]) -> list[Outcome]:
        if len(group) > 1 and self._batches is not None:
            calls = [request.inputs for request in group]
            try:
                self.runs += 1
                outputs = self._model.run(self._batches.join(calls))
            except ModelClosedError:
                raise
            except AotiError:  # the request that caused it is found below
                pass
            else:
                parts = self._batches.split(outputs, [*map(self._rows_of, group)])
                if self._proven or self._prove(group, parts):
                    return list(parts)
        return [self._run_alone(request) for request in group]

    def _run_alone(self, request: Request) -> Outcome:
        if request.error is not None:
            return request.error
        try:
            self.runs += 1
            return self._model.run(request.inputs)
        except ModelClosedError:
            raise
        except AotiError as error:
            return error

    def _prove(self, group: Sequence[Request], parts: Sequence[list[Any]]) -> bool:
        """Whether the first and the last request of a joined call give the same results alone."""
        for index in (0, -1):
            alone = self._run_alone(group[index])
            if isinstance(alone, AotiError) or not all(map(same, alone, parts[index])):
                self._batches = None
                self.warning = (
                    "results of this model depend on what else is in a batch, so inputs are run "
                    "one at a time"
                )
        self._proven = differ(group[0].inputs, group[-1].inputs)
        return self._batches is not None
