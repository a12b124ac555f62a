"""What a benchmark gives: plain data, which JSON takes as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from aoti.bench.environment import Machine
from aoti.bench.settings import Settings

VERSION = 1  # of the JSON document


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls took, in milliseconds.

    Attributes
    ----------
    median, min, mean, p90, p99, max : float
        Over all calls of all rounds. A call is what lies between the end of the one before and its
        own: the loop and the clock are in it, some 0.1 microseconds.
    """

    median: float
    min: float
    mean: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long calls take as those of the first engine.

    Attributes
    ----------
    median : float
        Of the ratios of each round, in which both ran one after the other.
    low, high : float
        The least and the largest ratio of a round, without the outermost tenths of the rounds.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far results are from those of the first engine.

    Attributes
    ----------
    largest : float or None
        The largest difference of two elements; None where there is no such number.
    reason : str or None
        What is wrong, in a line; None if it is within the tolerances of `aoti.golden`.
    """

    largest: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs.

    Attributes
    ----------
    sizes : dict of str to int
        What the dynamic sizes are.
    shapes : dict of str to tuple of int
        The inputs' shapes by their names.
    rows : int or None
        How many rows a call has, where the model takes any number of them.
    """

    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    rows: int | None

    def __str__(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.sizes.items())


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
        How long they took.
    rounds_ms : tuple of float
        The median of each round.
    low_ms, high_ms : float
        The least and the largest of these, without the outermost tenths of the rounds.
    spread : float or None
        Half of what lies between those two, as a part of the median; None of a single round. The
        ranges of two runs overlap, unless the machine's speed changed in between.
    cpu_ms : float
        What a call takes of the processors, by all threads of the process: the median of the
        rounds. Others on the machine touch it less than the latency.
    calls_per_second, rows_per_second : float
        Of all runners together: the median of the rounds. Rows only where the case has them.
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
        All of it.
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
        What loading the model and the first call add to it.
    growth_private : int
        What the timed rounds add.
    resident : int
        All that is resident at the end, files that are mapped and shared included.
    peak_resident : int
        The most that ever was.
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
        What tables call it: the engine's name, with the package's where there are several.
    engine : str
        ``aoti``, ``stock``, ``eager``, ``compile``, ``onnxruntime`` or ``openvino``.
    package : str or None
        What it runs, where that is a package.
    versions : dict of str to str
        The versions of its libraries.
    start : Start
        How it came up.
    memory : Memory
        What it takes.
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
        Why, and what to do, in a line.
    """

    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured.

    Attributes
    ----------
    date : str
        When it began, in UTC: ``2026-01-31 12:00``.
    package, model_name : str
        What was measured.
    machine : Machine
        Where.
    settings : Settings
        How. `Settings.threads` is the number that was used.
    cases : tuple of Case
        The inputs.
    engines : tuple of EngineRun
        The processes. The first one is what the others are compared with.
    measurements : tuple of Measurement
        For each case, each engine.
    bins_ms : tuple of tuple of float
        For each case the edges of the bins of its histograms, one more than there are bins. Calls
        that took longer than the last edge are in no bin.
    skipped : tuple of Skipped
        Engines that were asked for, and why they did not run.
    notes : tuple of str
        What a reader should know, for people.
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
        """The report as JSON has it, with the version of its form."""
        return {"version": VERSION, **asdict(self)}
