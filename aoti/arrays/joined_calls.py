"""Queued calls of a model as joined runs: who can be joined with whom, and who gets what."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aoti._warnings import warn
from aoti.arrays.batching import Batches, as_numpy, differ, same
from aoti.arrays.libraries import find
from aoti.errors import ConfigError, ExecutionError
from aoti.machine.device import Device
from aoti.options import Batching
from aoti.signature.dtypes import numpy_dtype
from aoti.signature.signature import Signature

if TYPE_CHECKING:
    from aoti.arrays.batching import Array

Answer = tuple[Any, int]  # the result of a call, and the version of the weights that it ran with

_DEFAULT_SIZE = 32  # rows, if the model accepts that many

_MIXES = "results of this model depend on what else is in a batch, so calls are run one at a time"


@dataclass(frozen=True, slots=True, eq=False)
class QueuedCall:
    """A call that waits.

    Attributes
    ----------
    leaves : sequence
        The flat inputs, as the caller passed them.
    arrays : list of numpy.ndarray
        The same as the model takes them.
    library : str
        The library of the arrays that the caller gets.
    key : hashable
        Calls with the same key can be joined; None: it is run alone.
    rows : int
        How many rows it has.
    since : float
        When it came, by `time.monotonic`.
    """

    leaves: Sequence[object]
    arrays: list[Array]
    library: str
    key: Hashable
    rows: int
    since: float


class JoinedCalls:
    """The queued calls of one model, and how several become one run.

    Parameters
    ----------
    batching : Batching
        What was asked for.
    signature : Signature
        What the model takes and returns.
    device : Device
        Where it runs.
    fit : callable
        ``fit(leaves)`` checks flat inputs and gives the arrays that a run would pass on.
    call : callable
        ``call(leaves)`` is a call of the model with flat inputs. Returns the result, and the
        version of the weights.
    run : callable
        ``run(arrays, library)`` gives flat outputs of this library, and the version of the weights.
    rebuild : callable
        From flat outputs to the result of a call.
    outputs : str, optional
        The library of all outputs. None: that of the inputs.

    Attributes
    ----------
    max_rows : int
        The maximum number of rows of a joined run; 1 once calls are not joined any more.
    max_delay : float
        Seconds that a call waits for others.

    Raises
    ------
    ConfigError
        Calls of the model cannot be joined as asked.

    Notes
    -----
    Joined runs are verified until one has shown that the model treats rows apart: its first and
    its last call are run alone, too. If a result differs, no call is joined any more.
    """

    def __init__(
        self,
        batching: Batching,
        signature: Signature,
        *,
        device: Device,
        fit: Callable[[Sequence[object]], list[Any]],
        call: Callable[[Sequence[object]], Answer],
        run: Callable[[Sequence[Array], str], tuple[list[Any], int]],
        rebuild: Callable[[list[Any]], Any],
        outputs: str | None,
    ) -> None:
        if device.type != "cpu":
            raise ConfigError(f"batching: calls are joined on the CPU only, not on {device}")
        self._batches = _chosen(batching, signature)
        most = self._batches.max_rows
        if batching.max_size is not None and most is not None and batching.max_size > most:
            raise ConfigError(
                f"batching: the model accepts at most {most} rows, not {batching.max_size}"
            )
        self.max_rows = batching.max_size or min(_DEFAULT_SIZE, most or _DEFAULT_SIZE)
        self.max_delay = batching.max_delay
        self._fit, self._call, self._run, self._rebuild = fit, call, run, rebuild
        self._outputs = outputs
        self._proven = False

    def queued(self, leaves: Sequence[object]) -> QueuedCall:
        """A call for the queue.

        Raises
        ------
        InputError, InputTypeError
            The model does not take these inputs.
        """
        arrays = [as_numpy(array) for array in self._fit(leaves)]
        library = self._outputs or _library_of(leaves)
        rows = self._batches.rows(arrays) or 0
        key = None
        # An aoti.Tensor cannot be cut.
        if rows < self.max_rows and library != "dlpack":
            key = self._batches.key(arrays)
        joined = None if key is None else (library, key)
        return QueuedCall(leaves, arrays, library, joined, rows, time.monotonic())

    def call(self, queued: QueuedCall) -> Answer:
        """Run one call alone: its result, and the version of the weights."""
        return self._call(queued.leaves)

    def call_together(self, calls: Sequence[QueuedCall]) -> list[Answer]:
        """Run several calls with the same key. Returns what `call` returns, for each.

        Raises
        ------
        Exception
            What the model or a conversion raises. Then each call is to be run alone, which shows
            whose fault it is.
        """
        if self.max_rows == 1:
            raise ExecutionError(_MIXES)
        first, *_, last = calls
        joined = self._batches.join([call.arrays for call in calls])
        outputs, version = self._run(joined, first.library)
        parts = self._batches.split(outputs, [call.rows for call in calls])
        if not self._proven:
            for call, part in ((first, parts[0]), (last, parts[-1])):
                alone, again = self._run(call.arrays, call.library)
                if again != version:  # the weights were replaced in between: nothing is shown
                    break
                if not all(map(same, alone, part)):
                    self.max_rows = 1
                    warn(_MIXES)
                    raise ExecutionError(_MIXES)
            else:
                self._proven = differ(first.arrays, last.arrays)
        return [(self._rebuild(part), version) for part in parts]


def _chosen(batching: Batching, signature: Signature) -> Batches:
    """The dimension that holds the rows.

    Raises
    ------
    ConfigError
        No dimension can hold the rows, or several can and `batching` does not name one.
    """
    found = {batches.dim: batches for batches in Batches.all_of(signature)}
    if not found:
        raise ConfigError(
            "batching: calls of this model cannot be joined: the package does not describe a "
            "dynamic size that all outputs have once, and on which no other size depends"
        )
    for spec in (*(signature.inputs or ()), *(signature.outputs or ())):
        try:
            numpy_dtype(spec.dtype or "")
        except ValueError as error:
            raise ConfigError(f"batching: {error}") from error
    chosen = Batches.of(signature) if batching.dim is None else found.get(batching.dim)
    if chosen is None:
        listed = ", ".join(map(repr, found))
        asked = "" if batching.dim is None else f", not {batching.dim!r:.60}"
        raise ConfigError(
            f"batching: name the dimension that holds the rows: aoti.Batching(dim=...) with one of "
            f"{listed}{asked}"
        )
    return chosen


def _library_of(leaves: Sequence[object]) -> str:
    """The library that a call with these inputs gives: see aoti.arrays.libraries."""
    for leaf in leaves:
        if type(leaf).__module__ != "numpy" and (found := find(type(leaf))) is not None:
            return found[0]
    return "numpy"
