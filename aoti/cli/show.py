"""What the verbs share: tables for people, and device names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from aoti.errors import DeviceError

if TYPE_CHECKING:
    import numpy as np


class DeviceName(click.ParamType[str]):
    """A device by name. A misspelled one is a wrong call; whether it is there shows later."""

    name = "device"

    def convert(self, value: str, param: Any, ctx: Any) -> str:  # noqa: ARG002
        """Give the name as it is printed."""
        from aoti.device import Device

        try:
            return str(Device(value))
        except DeviceError as error:
            raise click.UsageError(str(error)) from error


def printable(value: object) -> str:
    """The text of a value, with what a terminal would act on written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table as wide as its content, on as many columns as the terminal has."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    for row in rows:
        # Text, because names out of a package are no markup.
        lines = ("\n".join(map(printable, str(cell).split("\n"))) for cell in row)
        table.add_row(*(Text(line) for line in lines))
    console = Console(highlight=False)
    console.print(Text(printable(title), style="bold"))
    console.print(table)


def show_outputs(outputs: Mapping[str, np.ndarray[Any, Any]], summary: str) -> None:
    """Print what a model returned, large arrays in short."""
    import numpy as np

    rows = []
    for name, array in outputs.items():
        values = np.array2string(array, precision=5, threshold=12, edgeitems=3)
        rows.append((name, array.dtype.name, "x".join(map(str, array.shape)) or "scalar", values))
    show_table(summary, ("output", "dtype", "shape", "values"), rows)
