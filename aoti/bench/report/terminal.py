"""A report on a terminal: tables that fit its width, and histograms of the calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from aoti._text import printable
from aoti.bench.report import tables
from aoti.bench.report.report import Report
from aoti.bench.report.tables import Grid
from aoti.bench.report.units import duration

_BARS, _PLAIN_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#%"
_RARE = 200  # a bin with this many times fewer calls than the fullest one is empty
_WIDE = 400  # columns if the output is not a terminal: nothing is left out


def show(report: Report, file: IO[str] | None = None, *, color: bool | None = None) -> None:
    """Print a report, by default with colors if the terminal supports them."""
    console = Console(
        file=file,
        highlight=False,
        soft_wrap=False,
        force_terminal=color or None,
        no_color=None if color is None else not color,
    )
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    console.print(Text(_plain(tables.title(report), console), "bold"))
    console.print(_text(str(report.machine), console), style="dim")
    console.print(_text(tables.method(report), console), style="dim")
    left_out: set[str] = set()
    for number, case in enumerate(report.cases):
        console.print()
        console.print(Text(_plain(tables.heading(case), console), "bold"))
        left_out |= _grid(console, tables.latencies(report, number))
        _histogram(console, report, number)
    console.print()
    left_out |= _grid(console, tables.starts(report))
    for skipped in report.skipped:
        said = _plain(f"{skipped.label}: {skipped.reason}", console)
        console.print(f"[yellow]not run:[/] {escape(said)}")
    for note in report.notes:
        console.print(f"[yellow]note:[/] {escape(_plain(note, console))}")
    if left_out:
        console.print("too narrow for all numbers: use --json to see them", style="dim")


def _grid(console: Console, grid: Grid) -> set[str]:
    """Print a table with as many columns as fit; return the others."""
    rows = [[_plain(cell, console) for cell in row] for row in grid.rows]
    columns = [_plain(column, console) for column in grid.columns]
    widths = [max(len(row[n]) for row in [columns, *rows]) + 1 for n in range(len(columns))]
    shown = len(widths)
    while shown > 2 and sum(widths[:shown]) > console.width:
        shown -= 1
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns[:shown]):
        figure = number > 0 and column != "versions"
        justify: Any = "right" if figure else "left"
        table.add_column(column, header_style="dim", justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row[:shown]))
    console.print(table)
    return set(columns[shown:])


def _histogram(console: Console, report: Report, number: int) -> None:
    """A histogram of call times, one line per engine, all on one scale."""
    found, edges = report.of_case(number), report.bins_ms[number]
    label = max(len(measured.engine) for measured in found) + 1
    joined = next(
        (n for n in (1, 2, 3, 4, 6, 8) if (len(edges) - 1) // n + label <= console.width), 12
    )
    width = (len(edges) - 1) // joined
    low, high = (_plain(duration(edge), console) for edge in (edges[0], edges[-1]))
    gap = max(1, width - len(low) - len(high))
    console.print(f"{'':{label}}{low}{'':{gap}}{high}", style="dim", no_wrap=True)
    for measured in found:
        counts = measured.histogram
        bars = _bars([sum(counts[n : n + joined]) for n in range(0, len(counts), joined)], console)
        line = Text(f"{_plain(measured.engine, console):{label}}")
        line.append(bars, "cyan")
        console.print(line, no_wrap=True)


def _bars(counts: Sequence[int], console: Console) -> str:
    marks = _PLAIN_BARS if console.options.ascii_only else _BARS
    most = max(counts) or 1
    # Every bin with calls has a visible bar, except bins with very few calls.
    return "".join(
        marks[-(-(len(marks) - 1) * n // most) if n * _RARE > most else 0] for n in counts
    )


def _text(text: str, console: Console) -> Text:
    return Text(_plain(text, console))


def _plain(text: str, console: Console) -> str:
    """The text in characters of the terminal, with escapes in place of control characters."""
    if console.options.ascii_only:
        text = text.replace("µs", "us").replace("±", "+-")
    return printable(text)
