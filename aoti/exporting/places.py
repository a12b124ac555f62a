"""Lines of the user's code, for messages: ``net.py:12, in forward: y = x.view(8, 4)``."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

import torch

_HERE = f"{Path(__file__).resolve().parent}{os.sep}"
# Code in these directories is not the user's.
_NOT_THE_USERS = (
    _HERE,
    *(
        f"{Path(path).resolve()}{os.sep}"
        for path in (
            *(torch.__path__[0], sysconfig.get_path("stdlib")),
            Path(__file__).parent.parent / "cli",
        )
    ),
)
_FRAME_IN_TEXT = re.compile(r'File "([^"\n]+)", line (\d+), in ([^\s,]+)')


class Place(str):
    """A line of the user's code, as messages show it."""

    __slots__ = ()


def place_of(error: BaseException) -> str:
    """The innermost line of the user's code in an error's traceback; empty if there is none."""
    frames = [
        (frame.filename, frame.lineno or 0, frame.name)
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    # The strict tracer reports the user's frames in its message only.
    frames += [(m[1], int(m[2]), m[3]) for m in _FRAME_IN_TEXT.finditer(str(error))]
    return _first(reversed(frames)) or ""


def current_place() -> Place | None:
    """The line of the user's code that is running, called by the exporter; None if none is."""
    return _first(_running())


def _running() -> Iterator[tuple[str, int, str]]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and not (
        # The exporter's own frames that call the user's code: what called them is not traced.
        frame.f_code.co_filename.startswith(_HERE) and frame.f_code.co_name == "trace"
    ):
        yield frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back


def _first(frames: Iterable[tuple[str, int, str]]) -> Place | None:
    for filename, line, name in frames:
        path = Path(filename)
        if path.is_file() and not str(path.resolve()).startswith(_NOT_THE_USERS):
            source = path.read_text(encoding="utf-8", errors="replace").splitlines()
            code = source[line - 1].strip() if 0 < line <= len(source) else ""
            return Place(f"{path.name}:{line}, in {name}: {code}"[:200])
    return None
