"""What the process of an engine is told, and what it answers."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from typing import Any

from aoti._processes import write


@dataclass(frozen=True, slots=True)
class Job:
    """What to run, and how.

    Attributes
    ----------
    package : str
        The path of the package.
    model_name : str
        Which model of it.
    mode : str
        See `Settings`.
    runners, threads : int
        How many calls run at a time, and how many threads each uses.
    source : str or None
        Where the module comes from that was exported: as for ``aoti export``.
    onnx : str or None
        The path of the same model for engines that read ONNX.
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
        """The same with arrays of its own, in the same memory layout."""
        buffer = io.BytesIO()
        write(buffer, self)
        inputs: Inputs = pickle.loads(buffer.getbuffer())
        return inputs


@dataclass(frozen=True, slots=True)
class Prepare:
    """Get ready for inputs, and warm up for so many seconds. The answer is a `Prepared`."""

    inputs: Inputs
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Make timed calls on inputs, by their number, for so many seconds: a `loops.Round`."""

    case: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """Say how much memory there is in the end: a `Finished`."""


@dataclass(frozen=True, slots=True)
class Started:
    """An engine has given its first answer.

    Attributes
    ----------
    imported_ns, loaded_ns, answered_ns : int
        When that was done, as `time.perf_counter_ns` counts in all processes, without what looking
        at the memory took.
    private_before, private_after : int
        Bytes of private memory, before the model was loaded and after the answer.
    versions : dict of str to str
        The versions of its libraries.
    """

    imported_ns: int
    loaded_ns: int
    answered_ns: int
    private_before: int
    private_after: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an engine gives for the inputs, flat, and bytes of private memory after warming up."""

    outputs: list[Any]
    private: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Bytes of memory at the end."""

    private: int
    resident: int
    peak_resident: int
