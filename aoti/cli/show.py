"""Helpers of the verbs: tables and JSON on standard output, device and model names."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from aoti._text import printable
from aoti.cli.terminal import width
from aoti.errors import AotiError, DeviceError

if TYPE_CHECKING:
    import numpy as np

_NARROWEST = 8  # minimum width of a column of a table
_GAP = "  "


class Mark(NamedTuple):
    """A cell of a table with a color."""

    text: str
    color: str


GOOD, BAD = Mark("ok", "green"), Mark("bad", "red")


def device_name(_context: object, _parameter: object, value: str | None) -> str | None:
    """Check the spelling of a device, for click. Whether it exists is checked later."""
    from aoti.machine.device import Device

    try:
        return None if value is None else str(Device(value))
    except DeviceError as error:
        raise click.UsageError(str(error)) from error


def located(source: str) -> str:
    """The path of a package, which is given as a path or as the name of a registered model."""
    if source.endswith(".pt2"):  # not a name; importing the registry takes 10 ms
        return source
    from aoti.registry import resolve

    model = resolve(source)
    return source if model is None else str(model.path)


def complete_model(_context: object, _parameter: object, incomplete: str) -> list[CompletionItem]:
    """Completions for the shell: matching names of registered models, and files."""
    from aoti.registry import models

    with contextlib.suppress(AotiError):
        names = sorted({model.name for model in models()})
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")]
    return [CompletionItem(incomplete, type="file")]


def show_json(document: object) -> None:
    """Print JSON. Numbers that JSON lacks, nan and the infinities, are null."""
    json.dump(_finite(document), sys.stdout, indent=2, allow_nan=False)
    click.echo()


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as wide as its content. If it is wider than the terminal, cells are folded.

    It does not use rich, whose import takes a third of the time of ``aoti info``.
    """
    marks = [
        [
            Mark(printable(cell.text), cell.color)
            if isinstance(cell, Mark)
            else Mark(printable(cell), "")
            for cell in row
        ]
        for row in rows
    ]
    show_cells(title, columns, marks)


def show_cells(title: str, columns: Sequence[str], rows: Sequence[Sequence[Mark]]) -> None:
    """As `show_table`, with cells that are printed as they are and may have several lines."""
    click.secho(printable(title), bold=True)
    if any(columns):
        rows = [[Mark(column, "bright_black") for column in columns], *rows]
    if not rows:
        return
    natural = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    widths = _fitting(natural, width())
    for row in rows:
        folded = [_folded(cell.text, size) for cell, size in zip(row, widths, strict=True)]
        for line in range(max(map(len, folded))):
            parts = []
            for cell, lines, size in zip(row, folded, widths, strict=True):
                text = lines[line] if line < len(lines) else ""
                padding = " " * (size - _columns(Mark(text, "")))
                styled = click.style(text, cell.color) if cell.color and text else text
                parts.append(styled + padding)
            click.echo(_GAP.join(parts).rstrip())


def _columns(cell: Mark) -> int:
    """The width of the widest line of a text on a terminal."""
    if cell.text.isascii() and "\n" not in cell.text:
        return len(cell.text)
    return max(
        sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
        for line in cell.text.split("\n")
    )


def _fitting(widths: list[int], available: int | None) -> list[int]:
    """Widths of columns that fit the terminal: the widest columns are narrowed first."""
    if available is None:
        return widths
    widths = widths.copy()
    room = available - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _folded(text: str, size: int) -> list[str]:
    lines = []
    for line in text.split("\n"):
        lines += [line] if len(line) <= size else wrap(line, size, break_on_hyphens=False)
    return lines


def show_outputs(outputs: Mapping[str, np.ndarray[Any, Any]], summary: str) -> None:
    """Print the outputs of a model, large arrays in short."""
    import numpy as np

    rows = []
    for name, array in outputs.items():
        shape = "x".join(map(str, array.shape)) or "scalar"
        rows.append([Mark(cell, "") for cell in (printable(name), array.dtype.name, shape)])
    taken = sum(max(map(_columns, column)) + len(_GAP) for column in zip(*rows, strict=True))
    line = None if (columns := width()) is None else max(columns - taken, _NARROWEST)
    for row, array in zip(rows, outputs.values(), strict=True):
        text = np.array2string(array, line, precision=5, threshold=12, edgeitems=3)
        row.append(Mark(text, ""))
    show_cells(summary, ("output", "dtype", "shape", "values"), rows)
