"""What a measured run gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """What `AOTIModel.infer` gives.

    Attributes
    ----------
    outputs : list of arrays
        The outputs, flat, in the order of the output treespec.
    latency_ms : float
        Wall time of the call in milliseconds, waiting for a runner included.
    memory_bytes : int or None
        What the run took on the device at most, beyond what was in use there before it; None on
        the CPU. Runs at the same time count too.
    version : int
        Which weights it ran with: see `AOTIModel.version`.
    """

    outputs: list[Any]
    latency_ms: float
    memory_bytes: int | None
    version: int = 1
