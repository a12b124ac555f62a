"""Warnings that point at the caller's code, however many frames of aoti are in between."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

_OURS = f"{Path(__file__).parent}/"


class AotiWarning(UserWarning):
    """A warning of aoti itself, in contrast to those of torch and other libraries."""


def warn(message: str, category: type[Warning] = AotiWarning) -> None:
    """Warn with the line that called into aoti.

    As ``skip_file_prefixes`` of `warnings.warn`, which Python has since 3.12.
    """
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
