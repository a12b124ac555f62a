"""The messages between a benchmark and the process of an engine."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aoti._processes import write


class Job(NamedTuple):
    """What to run, and how.

    Attributes
    ----------
    package : str
        The path of the package.
    model_name : str
        The model in it.
    mode : str
        See `Settings`.
    runners, threads : int
        How many calls run at the same time, and how many threads each uses.
    source : str or None
        The module that was exported: as for ``aoti export``.
    onnx : str or None
        The path of the model as ONNX, for engines that read it.
    """

    package: str
    model_name: str
    mode: str
    runners: int
    threads: int
    source: str | None = None
    onnx: str | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of a call.

    Attributes
    ----------
    arrays : list of numpy.ndarray
        In flat order.
    args, kwargs : tuple and dict, or None
        The same arrays in the structure of a call; None if that is not known.
    """

    arrays: list[Any]
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    def copied(self) -> Inputs:
        """The same inputs with copied arrays, in the same memory layout."""
        buffer = io.BytesIO()
        write(buffer, self)
        inputs: Inputs = pickle.loads(buffer.getbuffer())
        return inputs


class Prepare(NamedTuple):
    """Prepare for inputs, and warm up for so many seconds. The answer is a `Prepared`."""

    inputs: Inputs
    seconds: float


class Turn(NamedTuple):
    """Make timed calls on a case for so many seconds. The answer is a `timing.Round`."""

    case: int
    seconds: float


class Finish:
    """Report the memory at the end. The answer is a `Finished`."""


class Started(NamedTuple):
    """An engine has given its first answer.

    Attributes
    ----------
    imported_ns, loaded_ns, answered_ns : int
        When that was done, by `time.perf_counter_ns`, which is the same in all processes, without
        the time for measuring memory.
    private_before, private_after : int
        Bytes of private memory, before loading the model and after the answer.
    versions : dict of str to str
        The versions of its libraries.
    """

    imported_ns: int
    loaded_ns: int
    answered_ns: int
    private_before: int
    private_after: int
    versions: dict[str, str]


class Prepared(NamedTuple):
    """The outputs of an engine, flat, and bytes of private memory after the warm-up."""

    outputs: list[Any]
    private: int


class Finished(NamedTuple):
    """Bytes of memory at the end."""

    private: int
    resident: int
    peak_resident: int
