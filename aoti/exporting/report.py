"""The result of an export, for programs and for people."""

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
        Its inputs and outputs, and the options that it was compiled with.
    preset : Preset
        The options, including those that the caller set.
    attempts : tuple of Attempt
        The attempts to trace it, and why they failed. The last one worked.
    rewrites : tuple of str
        The rewrites of its graph.
    cases : tuple of Case
        The comparisons with eager PyTorch, if requested.
    speed : Speed or None
        How long calls take, if requested.
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
    """An exported package. It can be used as a path.

    Attributes
    ----------
    path : Path
        The package.
    bytes : int
        Its size.
    models : dict of str to ExportedModel
        Its models by their names in the package.
    """

    path: Path
    bytes: int
    models: Mapping[str, ExportedModel]

    def __fspath__(self) -> str:
        return str(self.path)
