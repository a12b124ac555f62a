"""Contestants in one process, in turns: what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def per_call(call: Callable[[], object], calls: int) -> float:
    """Microseconds of one call."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def in_turns(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each measured in each round. Who was first in one is last in the next."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in reversed(contestants) if number % 2 else contestants:
            figures[name].append(contestants[name]())
    return figures
