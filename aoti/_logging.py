"""The logger ``aoti``, and its output if the application did not configure logging.

Nothing is printed unless the application requests it: with the `logging` module, with the key
``logging.level`` of a configuration, or with the variable ``AOTI_DEBUG``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

from aoti._text import printable

logger = logging.getLogger("aoti")
logger.addHandler(logging.NullHandler())


class _StandardError(logging.Handler):
    """Prints to the current standard error, if that is open."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(self.format(record), file=sys.stderr)


class _Printable(logging.Formatter):
    """A message is one line, and nothing in it acts on the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


def debugging() -> bool:
    """Whether ``AOTI_DEBUG`` is set to a value other than 0."""
    return os.environ.get("AOTI_DEBUG", "0") not in ("", "0")


def show(level: str) -> None:
    """Show messages of a level and above, on standard error if there is no other handler."""
    logger.setLevel(level.upper())
    if not logging.getLogger().handlers and len(logger.handlers) == 1:
        handler = _StandardError()
        handler.setFormatter(_Printable("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        logger.addHandler(handler)
