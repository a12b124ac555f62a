"""What an export did, for programs and for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aoti.exporting.build.presets import Preset
from aoti.exporting.capture.trace import Attempt
from aoti.exporting.verify.speed import Speed
from aoti.exporting.verify.verifying import Case
from aoti.signature.signature import Signature


@dataclass(frozen=True)
class ExportedModel:
    """One model of a package that was exported.

    Attributes
    ----------
    signature : Signature
        What it takes and gives, and what it was compiled with.
    preset : Preset
        The options, those set on top among them.
    attempts : tuple of Attempt
        How it was traced: what was tried, and why it failed. The last one worked.
    rewrites : tuple of str
        What was rewritten in its graph.
    cases : tuple of Case
        The comparisons with eager, if they were asked for.
    speed : Speed or None
        How long calls take, if that was asked for.
    seconds : float
        How long it took to compile.
    """

    signature: Signature
    preset: Preset
    attempts: tuple[Attempt, ...]
    rewrites: tuple[str, ...]
    cases: tuple[Case, ...]
    speed: Speed | None
    seconds: float


@dataclass(frozen=True)
class Exported(os.PathLike[str]):
    """A package that was exported. It can be passed wherever its path can.

    Attributes
    ----------
    path : Path
        The package.
    bytes : int
        Its size.
    models : dict of str to ExportedModel
        What is in it, by the names that `aoti.load` knows.
    """

    path: Path
    bytes: int
    models: Mapping[str, ExportedModel]

    def __fspath__(self) -> str:
        return str(self.path)
