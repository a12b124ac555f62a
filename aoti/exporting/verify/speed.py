"""The speed of a package, compared with eager PyTorch and PyTorch's own export."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aoti.exporting.verify.verifying import Eager, runner
from aoti.signature.signature import Signature

_ROUNDS = 7
_ROUND_SECONDS = 0.05  # at least, for each


@dataclass(frozen=True)
class Speed:
    """Milliseconds of a call with the example arguments: medians of interleaved rounds.

    Attributes
    ----------
    package, eager, stock : float
        Of the package, of the module itself, and of the package that PyTorch's own exporter makes
        with its default options.
    """

    package: float
    eager: float
    stock: float


def measure(eager: Eager, signature: Signature, name: str, package: Path, stock: Path) -> Speed:
    """Time a package, eager, and a stock package of the same program.

    All use as many threads as torch does in this process: ``OMP_NUM_THREADS``.
    """
    tensors = [leaf for leaf in eager.leaves if isinstance(leaf, torch.Tensor)]
    with (
        runner(signature, package, name) as run_package,
        runner(signature, stock, "model") as run_stock,
    ):
        calls: Mapping[str, Callable[[], Any]] = {
            "package": lambda: run_package(tensors),
            "eager": lambda: eager.call(eager.leaves),
            "stock": lambda: run_stock(tensors),
        }
        repeats = {what: _repeats(call) for what, call in calls.items()}
        times: dict[str, list[float]] = {what: [] for what in calls}
        for _ in range(_ROUNDS):
            for what, call in calls.items():
                times[what].append(_milliseconds(call, repeats[what]))
    return Speed(**{what: statistics.median(found) for what, found in times.items()})


def _repeats(call: Callable[[], Any]) -> int:
    call()
    return max(1, int(_ROUND_SECONDS * 1000 / max(_milliseconds(call, 1), 1e-3)))


def _milliseconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return (time.perf_counter() - start) * 1000 / repeats
