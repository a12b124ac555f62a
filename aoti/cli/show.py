"""What the verbs share: tables for people, and device names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from aoti.errors import AotiError, DeviceError

if TYPE_CHECKING:
    import numpy as np


def device_name(_context: object, _parameter: object, value: str | None) -> str | None:
    """For click: a misspelled device is a wrong call; whether it is there shows later."""
    from aoti.device import Device

    try:
        return None if value is None else str(Device(value))
    except DeviceError as error:
        raise click.UsageError(str(error)) from error


def located(source: str) -> str:
    """The path that was meant: as given, or of the registered model of that name."""
    from aoti.registry import resolve

    model = resolve(source)
    return source if model is None else str(model.path)


def complete_model(_context: object, _parameter: object, incomplete: str) -> list[CompletionItem]:
    """For the shell: the names of registered models that begin so, and files."""
    from aoti.registry import models

    with contextlib.suppress(AotiError):
        names = sorted({model.name for model in models()})
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")]
    return [CompletionItem(incomplete, type="file")]


def printable(value: object) -> str:
    """The text of a value, with what a terminal would act on written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table as wide as its content, on as many columns as the terminal has.

    A cell that is a `rich.text.Text` is printed as it is, every other one as `printable` makes it.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    for row in rows:
        # Text, because names out of a package are no markup.
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    console.print(Text(printable(title), style="bold"))
    console.print(table)


def show_outputs(outputs: Mapping[str, np.ndarray[Any, Any]], summary: str) -> None:
    """Print what a model returned, large arrays in short."""
    import numpy as np
    from rich.text import Text

    rows = []
    for name, array in outputs.items():
        values = Text(np.array2string(array, precision=5, threshold=12, edgeitems=3))
        rows.append((name, array.dtype.name, "x".join(map(str, array.shape)) or "scalar", values))
    show_table(summary, ("output", "dtype", "shape", "values"), rows)
