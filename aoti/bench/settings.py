"""How a benchmark is made."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aoti.errors import ConfigError

MODES = ("sync", "async", "bound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure. The defaults take some five seconds for each engine and case.

    Parameters
    ----------
    mode : {'sync', 'async', 'bound'}
        ``sync``: each runner calls, one call after the other. ``async``: calls are queued, two for
        each runner, and a latency is the time from then to the answer. ``bound``: inputs, and
        outputs where an engine can, are fixed before.
    runners : int
        How many calls run at a time.
    threads : int, optional
        How many threads a call uses. Default: ``OMP_NUM_THREADS``, else the cores divided by the
        runners.
    duration : float
        Seconds that are timed, for each engine and case.
    rounds : int
        In how many turns. Each has at least one call.
    warmup : float
        Seconds, for each engine and case, before the first round.
    starts : int
        How many processes are started of each engine, for the time to the first answer.
    seed : int
        For the values of inputs that are made up.

    Raises
    ------
    ConfigError
        A number is too small, or there is no such mode.
    """

    mode: str = "sync"
    runners: int = 1
    threads: int | None = None
    duration: float = 3.0
    rounds: int = 10
    warmup: float = 0.5
    starts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode is one of {', '.join(MODES)}, and not {self.mode!r:.60}")
        for name, least in (("runners", 1), ("threads", 1), ("rounds", 1), ("starts", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")
        if not 0 < self.duration < 1e6 or not 0 <= self.warmup < 1e6:
            raise ConfigError("duration is a number of seconds above 0, and warmup one from 0 on")

    @property
    def threads_used(self) -> int:
        """How many threads a call uses, where nothing is said."""
        if self.threads is not None:
            return self.threads
        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        if given.isdecimal() and int(given):
            return int(given)
        return max(1, len(os.sched_getaffinity(0)) // self.runners)
