"""The report of a benchmark: plain data that can be written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from aoti._text import assignments
from aoti.bench.environment import Machine
from aoti.bench.settings import Settings

VERSION = 1  # of the JSON document


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls took, in milliseconds.

    Attributes
    ----------
    median, min, mean, p90, p99, max : float
        Over all calls of all rounds. The time of a call is that from the end of the previous call
        to its own end. It includes the loop and the clock: some 0.1 microseconds.
    """

    median: float
    min: float
    mean: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """The time of calls relative to the first engine.

    Attributes
    ----------
    median : float
        The median over the rounds; in each round, both engines ran one after the other.
    low, high : float
        The smallest and the largest ratio of a round, without the outermost tenths.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much results differ from those of the first engine.

    Attributes
    ----------
    largest : float or None
        The largest difference of two elements; None if it is not a number.
    reason : str or None
        What is wrong, in one line; None if it is within the tolerances of `aoti.golden`.
    """

    largest: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs.

    Attributes
    ----------
    sizes : dict of str to int
        The dynamic sizes.
    shapes : dict of str to tuple of int
        The shapes of the inputs by name.
    rows : int or None
        How many rows a call has, if the model accepts any number of rows.
    """

    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    rows: int | None

    def __str__(self) -> str:
        return assignments(self.sizes)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One engine on one set of inputs.

    Attributes
    ----------
    engine : str
        Its label.
    case : int
        The number of the inputs in `Report.cases`.
    calls : int
        How many calls were timed.
    latency_ms : Latency
        The time of a call.
    rounds_ms : tuple of float
        The median of each round.
    low_ms, high_ms : float
        The smallest and the largest of these, without the outermost tenths of the rounds.
    spread : float or None
        Half of the distance between those two, relative to the median; None for a single round.
        The ranges of two runs overlap, unless the machine's speed changed in between.
    cpu_ms : float
        CPU time of a call, over all threads of the process: the median of the rounds. Other
        programs on the machine affect it less than the latency.
    calls_per_second, rows_per_second : float
        Of all runners together: the median of the rounds. Rows only if the case has rows.
    ratio : Ratio or None
        To the first engine; None for itself.
    difference : Difference or None
        From the first engine's results; None for itself.
    histogram : tuple of int
        How many calls are in each of the bins of `Report.bins_ms`.
    """

    engine: str
    case: int
    calls: int
    latency_ms: Latency
    rounds_ms: tuple[float, ...]
    low_ms: float
    high_ms: float
    spread: float | None
    cpu_ms: float
    calls_per_second: float
    rows_per_second: float | None
    ratio: Ratio | None
    difference: Difference | None
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """From the start of a process to its first answer, in milliseconds; medians of the starts.

    Attributes
    ----------
    answer_ms : float
        The whole time.
    import_ms : float
        Importing the engine's libraries.
    load_ms : float
        Loading the model.
    first_call_ms : float
        The first call.
    """

    answer_ms: float
    import_ms: float
    load_ms: float
    first_call_ms: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of an engine's process, in bytes.

    Attributes
    ----------
    library_private : int
        Private memory before the model is loaded: Python, numpy and the engine's libraries.
    model_private : int
        The increase by loading the model and the first call.
    growth_private : int
        The increase during the timed rounds.
    resident : int
        Resident memory at the end, including mapped and shared files.
    peak_resident : int
        Its maximum.
    """

    library_private: int
    model_private: int
    growth_private: int
    resident: int
    peak_resident: int


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One engine's process.

    Attributes
    ----------
    label : str
        Its name in tables: the engine's name, with that of the package if there are several.
    engine : str
        ``aoti``, ``stock``, ``eager``, ``compile``, ``onnxruntime`` or ``openvino``.
    package : str or None
        The package that it runs, if it runs a package.
    versions : dict of str to str
        The versions of its libraries.
    start : Start
        The time from the start of the process to the first answer.
    memory : Memory
        Its memory.
    """

    label: str
    engine: str
    package: str | None
    versions: dict[str, str]
    start: Start
    memory: Memory


@dataclass(frozen=True, slots=True)
class Skipped:
    """An engine that is not in the report.

    Attributes
    ----------
    label : str
        The engine.
    reason : str
        Why, and what to do, in one line.
    """

    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The results of a benchmark.

    Attributes
    ----------
    date : str
        The start, in UTC: ``2026-01-31 12:00``.
    package, model_name : str
        The package and the model.
    machine : Machine
        The machine.
    settings : Settings
        The settings; `Settings.threads` is the number that was used.
    cases : tuple of Case
        The inputs.
    engines : tuple of EngineRun
        The processes. The others are compared with the first one.
    measurements : tuple of Measurement
        One for each engine and case.
    bins_ms : tuple of tuple of float
        For each case, the edges of the bins of its histograms, one more than there are bins. Calls
        that took longer than the last edge are not counted.
    skipped : tuple of Skipped
        Requested engines that did not run, and why.
    notes : tuple of str
        Remarks for the reader.
    """

    date: str
    package: str
    model_name: str
    machine: Machine
    settings: Settings
    cases: tuple[Case, ...]
    engines: tuple[EngineRun, ...]
    measurements: tuple[Measurement, ...]
    bins_ms: tuple[tuple[float, ...], ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    def of_case(self, number: int) -> list[Measurement]:
        """The measurements of one set of inputs."""
        return [measured for measured in self.measurements if measured.case == number]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON, with the version of its format."""
        return {"version": VERSION, **asdict(self)}
