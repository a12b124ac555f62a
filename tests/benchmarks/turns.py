"""Contestants in one process, in turns: what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Figure = TypeVar("Figure")


def per_call(call: Callable[[], object], calls: int) -> float:
    """Microseconds of one call."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def in_turns(
    contestants: Mapping[str, Callable[[], Figure]], rounds: int
) -> dict[str, list[Figure]]:
    """What each measured in each round. Who was first in one is last in the next."""
    figures: dict[str, list[Figure]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in reversed(contestants) if number % 2 else contestants:
            figures[name].append(contestants[name]())
    return figures
