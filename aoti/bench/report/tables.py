"""The tables of a report as text, for the terminal, Markdown and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aoti.bench.report.report import Case, EngineRun, Measurement, Report
from aoti.bench.report.units import digits, duration, error, megabytes


@dataclass(frozen=True, slots=True)
class Grid:
    """A table.

    Attributes
    ----------
    columns : sequence of str
        The names of the columns, the most important ones first.
    rows : sequence of sequence of str
        The cells.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def title(report: Report) -> str:
    """The title: package, model and date."""
    return f"{report.package}: {report.model_name}, {report.date} UTC"


def method(report: Report) -> str:
    """How the report was measured."""
    settings = report.settings
    modes = {"sync": "calls one after the other", "async": "queued calls", "bound": "bound calls"}
    runners = f"{settings.runners} runner{'s' if settings.runners > 1 else ''}"
    threads = f"{settings.threads} thread{'s' if settings.threads != 1 else ''} a call"
    each = duration(settings.duration / settings.rounds * 1e3)
    return f"{modes[settings.mode]}; {runners}, {threads}; {settings.rounds} rounds of {each} each"


def heading(case: Case) -> str:
    """The inputs: sizes and shapes."""
    shapes = ", ".join(
        f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in case.shapes.items()
    )
    return f"{case}: {shapes}" if str(case) else shapes or "no inputs"


def latencies(report: Report, number: int) -> Grid:
    """The engines on one set of inputs."""
    found = report.of_case(number)
    columns = ["engine", "median", "±", "calls/s"]
    compared = len(found) > 1
    if compared:
        columns += [f"time / {found[0].engine}", "differs by"]
    columns += ["p90", "p99", "CPU time", "min", "max", "mean"]
    with_rows = any((m.rows_per_second or 0) > m.calls_per_second for m in found)
    if with_rows:
        columns.append("rows/s")
    return Grid(columns, [_latency(m, compared=compared, with_rows=with_rows) for m in found])


def _latency(found: Measurement, *, compared: bool, with_rows: bool) -> list[str]:
    latency = found.latency_ms
    spread = "" if found.spread is None else f"{found.spread:.0%}"
    cells = [found.engine, duration(latency.median), spread, digits(found.calls_per_second)]
    if compared:
        ratio, difference = found.ratio, found.difference
        span = "" if ratio is None else f"{digits(ratio.low)} to {digits(ratio.high)}"
        cells.append("1" if ratio is None else f"{digits(ratio.median)} ({span})")
        wrong = "" if difference is None or difference.reason is None else " WRONG"
        cells.append("" if difference is None else error(difference.largest) + wrong)
    rest = latency.p90, latency.p99, found.cpu_ms, latency.min, latency.max, latency.mean
    cells += map(duration, rest)
    if with_rows:
        cells.append(digits(found.rows_per_second or 0))
    return cells


def starts(report: Report) -> Grid:
    """The time to the first answer and the memory of the engines."""
    columns = ["engine", "first answer", "load", "private memory", "of the model", "import"]
    columns += ["first call", "growth", "peak resident", "versions"]
    return Grid(columns, list(map(_start, report.engines)))


def _start(engine: EngineRun) -> list[str]:
    start, memory = engine.start, engine.memory
    return [
        engine.label,
        duration(start.answer_ms),
        duration(start.load_ms),
        megabytes(memory.library_private + memory.model_private),
        megabytes(memory.model_private),
        duration(start.import_ms),
        duration(start.first_call_ms),
        megabytes(memory.growth_private),
        megabytes(memory.peak_resident),
        ", ".join(f"{name} {version}" for name, version in engine.versions.items()),
    ]
