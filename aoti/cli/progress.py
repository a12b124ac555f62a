"""Progress of long work, on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from aoti._text import printable
from aoti.cli.terminal import colored, quiet

Item = TypeVar("Item")

_OFTEN = 0.1  # seconds


@contextlib.contextmanager
def progress(*, in_lines: bool = False) -> Iterator[Callable[[str], None]]:
    """Show the current step and its time, in one line on a terminal.

    Parameters
    ----------
    in_lines : bool
        If standard error is not a terminal, print a line for each step instead of nothing.

    Yields
    ------
    callable
        Takes the text of the step that starts.
    """
    # The stream is fixed here, since the work may redirect standard error.
    start, stream = time.monotonic(), sys.stderr

    def print_line(text: str) -> None:
        if in_lines and not quiet() and stream is not None:
            click.echo(printable(f"{time.monotonic() - start:6.1f} s  {text}"), stream)

    if quiet() or stream is None or not stream.isatty():
        yield print_line
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
        console = Console(file=stream, color_system=None if colored() is False else "auto")
        # Standard output is not redirected: results do not belong to this line.
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task("starting")
            yield lambda text: bar.update(task, description=escape(printable(text)))


def counted(items: Iterator[Item], step: Callable[[str], None]) -> Iterator[Item]:
    """The same items; `step` is called with their number and rate."""
    start = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) > last + _OFTEN:
            step(f"{count} inputs ({count / (now - start):.0f} per second)")
            last = now
