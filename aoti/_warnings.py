"""Warnings that point at the caller's code, however many of our own frames lie in between."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

_OURS = f"{Path(__file__).parent}/"


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the place where a program called into aoti.

    As ``skip_file_prefixes`` of `warnings.warn`, which Python has since 3.12.
    """
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
