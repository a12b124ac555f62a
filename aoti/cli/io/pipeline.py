"""Many calls of a model, several at a time and joined where that is cheaper, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from aoti.cli.io.input_stream import Request
from aoti.errors import AotiError, ConfigError, ModelClosedError

if TYPE_CHECKING:
    from aoti.arrays.batching import Batches
    from aoti.model import AOTIModel

Outcome = list[Any] | AotiError

DEFAULT_ROWS = 32  # of a joined call, where the model takes that many


class Stream:
    """Runs requests on a model.

    Parameters
    ----------
    model : AOTIModel
        Its `num_runners` calls run at a time.
    rows : int, optional
        How many rows a joined call may have; 1 joins nothing. Default: as the model takes, at most
        32.

    Attributes
    ----------
    runs : int
        How many calls of the model it took.
    warning : str or None
        Why calls are not joined after all.

    Raises
    ------
    ConfigError
        The model does not take that many rows.
    """

    def __init__(self, model: AOTIModel, batches: Batches | None, rows: int | None) -> None:
        most = None if batches is None else batches.max_rows
        if rows is not None and rows > 1 and batches is None:
            raise ConfigError(
                "calls of this model cannot be joined: its inputs and outputs do not share a free "
                "first dimension that the package tells of; leave --batch out"
            )
        if rows is not None and most is not None and rows > most:
            raise ConfigError(f"the model takes {most} rows at most, and not {rows}")
        self._model = model
        self._rows = rows or min(DEFAULT_ROWS, most or DEFAULT_ROWS)
        self._batches = batches if self._rows > 1 else None
        self._proven = False
        self.runs = 0
        self.warning: str | None = None

    def results(self, requests: Iterable[Request | None]) -> Iterator[tuple[Request, Outcome]]:
        """Every request with its outputs, or with what was wrong with it, in order.

        Only as much is held as runs and waits for a runner. Where the next request is not there
        yet (None), all results are given before it is waited for.
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
        """Neighbours that can be joined; an empty group where the next request must be awaited."""
        group, key, rows = list[Request](), None, 0
        for request in requests:
            if request is None:
                if group:
                    yield group
                yield []
                group, key, rows = [], None, 0
                continue
            own = self._key(request)
            own_rows = 0 if own is None else request.inputs[0].shape[0]
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

    def _run(self, group: Sequence[Request]) -> list[Outcome]:
        if len(group) > 1 and self._batches is not None:
            calls = [request.inputs for request in group]
            try:
                self.runs += 1
                outputs = self._model.run(self._batches.join(calls))
            except ModelClosedError:
                raise
            except AotiError:  # one of them is to blame, and is found below
                pass
            else:
                parts = self._batches.split(outputs, calls)
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
        """Whether the outer two of a joined call have the results that they have alone."""
        for index in (0, -1):
            alone = self._run_alone(group[index])
            if isinstance(alone, AotiError) or not all(map(_same, alone, parts[index])):
                self._batches = None
                self.warning = (
                    "results of this model depend on what else is in a batch, so inputs are run "
                    "one at a time"
                )
        self._proven = True
        return self._batches is not None


def _same(alone: Any, joined: Any) -> bool:
    """Whether two results are equal but for the order in which kernels add up."""
    if alone.shape != joined.shape:
        return False
    if alone.dtype.kind in "biu":
        return bool(np.array_equal(alone, joined))
    kind = np.complex128 if alone.dtype.kind == "c" else np.float64
    tolerance = 1e-3 if alone.dtype.itemsize >= 4 else 2e-2
    first, second = alone.astype(kind), joined.astype(kind)
    return bool(np.allclose(first, second, rtol=tolerance, atol=tolerance / 10, equal_nan=True))
