"""The output beside the results: verbosity, colors and width."""

from __future__ import annotations

import os
import shutil
from typing import Any

import click

from aoti._text import printable

_QUIET, _VERBOSE = "aoti.quiet", "aoti.verbose"  # keys of the shared context


def _choose_verbosity(context: click.Context, parameter: click.Parameter, value: int) -> None:
    if value:
        context.meta[_QUIET if parameter.name == "quiet" else _VERBOSE] = value
    if context.meta.get(_QUIET) and context.meta.get(_VERBOSE):
        raise click.UsageError("--quiet and --verbose exclude each other")
    if value and parameter.name == "verbose":
        from aoti import _logging

        _logging.show(_level(value))


def _choose_color(context: click.Context, _parameter: object, value: str | None) -> None:
    if value is not None:
        context.color = {"auto": None, "always": True, "never": False}[value]
    elif context.parent is None and os.environ.get("NO_COLOR"):
        context.color = False
    elif context.parent is None and os.environ.get("FORCE_COLOR"):
        context.color = True


_SETTING: Any = {"expose_value": False, "is_eager": True}  # stored in the context

COMMON = (
    click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        callback=_choose_verbosity,
        help="Print only results and errors.",
        **_SETTING,
    ),
    click.Option(
        ["-v", "--verbose"],
        count=True,
        callback=_choose_verbosity,
        help="Print what is done, with times; twice: in detail.",
        **_SETTING,
    ),
    click.Option(
        ["--color"],
        type=click.Choice(["auto", "always", "never"]),
        callback=_choose_color,
        help="Default: auto, colors on terminals. NO_COLOR and FORCE_COLOR are respected.",
        **_SETTING,
    ),
)


def quiet() -> bool:
    """Whether only results and errors are printed."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_QUIET))


def level() -> str | None:
    """The logging level of the flags, if there are any."""
    context = click.get_current_context(silent=True)
    verbose = 0 if context is None else context.meta.get(_VERBOSE, 0)
    return _level(verbose) if verbose else None


def _level(verbose: int) -> str:
    return "info" if verbose == 1 else "debug"


def colored() -> bool | None:
    """Whether to write colors; None if that depends on the stream."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.color


def width() -> int | None:
    """How many columns a line may have; None in files and pipes, where lines are not folded."""
    return shutil.get_terminal_size((0, 0)).columns or None


def say(text: object, *, err: bool = False) -> None:
    """Print a line on standard output, or on standard error, with escapes for control characters.

    Every line that may contain text from outside is printed by this function, or by `show_cells`.
    """
    click.echo(printable(text), err=err)


def note(text: object) -> None:
    """Print a remark, which is not a result, on standard error."""
    if not quiet():
        say(f"aoti: {text}", err=True)


def summarize(text: str) -> None:
    """Print what was done on standard output, if the result was written elsewhere."""
    if not quiet():
        say(text)
