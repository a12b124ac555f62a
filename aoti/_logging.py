"""The logger ``aoti``, and its output if the application did not configure logging.

Nothing is printed unless the application requests it: with the `logging` module, with the key
``logging.level`` of a configuration, or with the variable ``AOTI_DEBUG``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

logger = logging.getLogger("aoti")
logger.addHandler(logging.NullHandler())


class _StandardError(logging.Handler):
    """Prints to the current standard error, if that is open."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(self.format(record), file=sys.stderr)


def debugging() -> bool:
    """Whether ``AOTI_DEBUG`` is set to a value other than 0."""
    return os.environ.get("AOTI_DEBUG", "0") not in ("", "0")


def show(level: str) -> None:
    """Show messages of a level and above, on standard error if there is no other handler."""
    logger.setLevel(level.upper())
    if not logging.getLogger().handlers and len(logger.handlers) == 1:
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        logger.addHandler(handler)
