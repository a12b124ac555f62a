"""Tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table as wide as its content, on as many columns as the terminal has."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    for row in rows:
        # Text, because names out of a package are no markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(highlight=False)
    console.print(table)


def show_outputs(outputs: Mapping[str, np.ndarray[Any, Any]], summary: str) -> None:
    """Print what a model returned, large arrays in short."""
    rows = []
    for name, array in outputs.items():
        values = np.array2string(array, precision=5, threshold=12, edgeitems=3)
        rows.append((name, array.dtype.name, "x".join(map(str, array.shape)) or "scalar", values))
    show_table(summary, ("output", "dtype", "shape", "values"), rows)
