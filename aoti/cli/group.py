"""The command `aoti`: its verbs, how one is run, and how errors are shown."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NoReturn

import click

from aoti._version import __version__
from aoti.cli.terminal import COMMON, note, say
from aoti.errors import (
    AmbiguousModelError,
    AotiError,
    ConfigError,
    ExportError,
    InputError,
    ModelNotFoundError,
    PackageNotFoundError,
    reason,
)

# Errors in the call; all other errors are those of the model or the machine.
_WRONG_CALL = (
    AmbiguousModelError,
    ConfigError,
    InputError,
    ModelNotFoundError,
    PackageNotFoundError,
)

_HOMES = {
    "infer": ("infer", "infer"),
    "info": ("info", "info"),
    "check": ("check", "check"),
    "export": ("export", "export"),
    "verify": ("verify", "verify"),
    "bench": ("bench", "bench"),
    "serve": ("serve", "serve"),
    "unpack": ("unpack", "unpack"),
    "models": ("models", "models"),
    "cache": ("cache", "cache_group"),
    "test-device": ("test_device", "test_device"),
}


_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Verbs(click.Group):
    """A group whose verbs are imported when they are called.

    Parameters
    ----------
    homes : mapping of str to str
        For each verb, in the order of the help: its module in `aoti.cli.verbs` and its name there.
    """

    def __init__(self, *args: Any, homes: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(COMMON)
        self._homes = homes

    def list_commands(self, _context: click.Context) -> list[str]:
        """The names of the verbs."""
        return list(self._homes)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """A verb, with the options that all verbs have."""
        if name not in self._homes:
            return None
        module, attribute = self._homes[name]
        command: click.Command = getattr(import_module(f"aoti.cli.verbs.{module}"), attribute)
        _add_common(command)
        return command


def _add_common(command: click.Command) -> None:
    if COMMON[0] in command.params:
        return
    command.params.extend(COMMON)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_common(inner)


@click.group(
    cls=Verbs,
    homes=_HOMES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="aoti")
def cli() -> None:
    """Run compiled PyTorch models (.pt2 packages) without PyTorch.

    Exit codes: 0 success, 1 the model or the device failed, 2 the call was wrong.

    \b
    Example:
      aoti info model.pt2
    """


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. Errors become a line or two on standard error."""
    with _ending_on_signals():
        return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    try:
        if _debugging():
            from aoti import _logging

            _logging.show("debug")
        if sys.stdout is None:
            raise OSError("standard output is closed")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = cli.main(args=arguments, prog_name="aoti", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "aoti"
        _say(error.format_message(), f"see {command} --help")
        return error.exit_code
    except click.ClickException as error:
        _say(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit as error:  # click exits like this if the reader of our output is gone
        return error.code if isinstance(error.code, int) else 0
    except AotiError as error:
        # Errors of an export have one line for what is wrong and one for what to do.
        _say(*(str(error).splitlines() if isinstance(error, ExportError) else [str(error)]))
        if _debugging():
            for text in getattr(error, "__notes__", ()):
                _say(*text.splitlines())
        return 2 if isinstance(error, _WRONG_CALL) else 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        _say(reason(error))
        return 1
    except MemoryError as error:
        _say(str(error) or type(error).__name__)
        return 1
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let the signals that end a process end the command, so that it removes its files.

    A signal that the caller handles or ignores, as nohup does, is left alone.
    """
    signals = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        signals = []

    def end(number: int, _frame: object) -> NoReturn:
        for other in signals:  # a second signal must not interrupt the removal
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in signals:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def _debugging() -> bool:
    if "AOTI_DEBUG" not in os.environ:  # the usual case, which does not need to import logging
        return False
    from aoti import _logging

    return _logging.debugging()


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    with contextlib.suppress(OSError):
        note(f"warning: {message}")


def _say(*lines: str) -> None:
    """Print an error on standard error, if that is open."""
    with contextlib.suppress(OSError):
        for line in lines:
            say(f"aoti: {line}", err=True)


def main() -> NoReturn:
    """The console script: runs one command and ends the process.

    It skips libtorch's static destructors, which take 60 ms and free memory that the kernel frees
    anyway. Nothing is lost: output is flushed and exit handlers are run first. Only this function
    may do it, since it owns the process; other code in a process would lose its clean-up.
    """
    with contextlib.suppress(AttributeError):  # closed, or never opened
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code = run()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or never opened
            stream.flush()
    os._exit(code)
