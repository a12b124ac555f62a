"""The logger ``aoti``, and what it says where nobody configured logging.

Nothing is printed unless an application asks for it: by the `logging` module, by the key
``logging.level`` of a configuration, or by the variable ``AOTI_DEBUG``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

logger = logging.getLogger("aoti")
logger.addHandler(logging.NullHandler())


class _StandardError(logging.Handler):
    """Prints to whatever standard error is at the time, if it is there and takes it."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(self.format(record), file=sys.stderr)


def debugging() -> bool:
    """Whether ``AOTI_DEBUG`` is set, and not to 0."""
    return os.environ.get("AOTI_DEBUG", "0") not in ("", "0")


def show(level: str) -> None:
    """Have the logger say what is at or above a level, on standard error if nobody takes it."""
    logger.setLevel(level.upper())
    if not logging.getLogger().handlers and len(logger.handlers) == 1:
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        logger.addHandler(handler)
