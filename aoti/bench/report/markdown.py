"""A report as Markdown."""

from __future__ import annotations

from aoti._text import printable
from aoti.bench.report import tables
from aoti.bench.report.report import Report
from aoti.bench.report.tables import Grid


def markdown(report: Report) -> str:
    """The report with everything that is needed to judge its numbers.

    Returns
    -------
    str
        Markdown with tables, in the dialect of GitHub.
    """
    parts = [f"## {_cell(tables.title(report))}"]
    for number, case in enumerate(report.cases):
        parts += [f"### {_cell(tables.heading(case))}", table(tables.latencies(report, number))]
    parts += ["### From the start of a process, and memory", table(tables.starts(report))]
    facts = [
        f"Machine: {report.machine}.",
        f"Method: {tables.method(report)}. Times are medians; ± is half the range of the rounds' "
        "medians, without the outermost tenths.",
        *(f"Not run: {skipped.label}: {skipped.reason}." for skipped in report.skipped),
        *(f"Note: {note}." for note in report.notes),
    ]
    parts.append("\n".join(f"- {_cell(fact)}" for fact in facts))
    return "\n\n".join(parts) + "\n"


def table(grid: Grid) -> str:
    """A table as Markdown, with numbers aligned to the right."""
    rules = ["---", *("---:" for _ in grid.columns[1:])]
    rows = [list(map(_cell, row)) for row in (grid.columns, *grid.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rules, *rows[1:]))


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
