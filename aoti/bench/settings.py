"""Settings of a benchmark."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aoti.errors import ConfigError

MODES = ("sync", "async", "bound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure. With the defaults, each engine and case takes about five seconds.

    Parameters
    ----------
    mode : {'sync', 'async', 'bound'}
        ``sync``: each runner makes one call after the other. ``async``: calls are queued, two per
        runner, and a latency is the time from queueing to the answer. ``bound``: the inputs, and
        the outputs if the engine supports it, are fixed before.
    runners : int
        How many calls run at the same time.
    threads : int, optional
        How many threads a call uses. Default: ``OMP_NUM_THREADS``, else the cores divided by the
        runners.
    duration : float
        Timed seconds, for each engine and case.
    rounds : int
        Number of turns. Each has at least one call.
    warmup : float
        Seconds of warm-up before the first round, for each engine and case.
    starts : int
        How many processes of each engine are started, for the time to the first answer.
    seed : int
        The seed of the values of random inputs.

    Raises
    ------
    ConfigError
        A number is too small, or the mode does not exist.
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
            raise ConfigError(f"mode must be one of {', '.join(MODES)}, not {self.mode!r:.60}")
        for name, least in (("runners", 1), ("threads", 1), ("rounds", 1), ("starts", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")
        if not 0 < self.duration < 1e6 or not 0 <= self.warmup < 1e6:
            raise ConfigError(
                "duration must be a number of seconds above 0, and warmup must not be negative"
            )

    @property
    def threads_used(self) -> int:
        """How many threads a call uses: `threads`, or its default."""
        if self.threads is not None:
            return self.threads
        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        if given.isdecimal() and int(given):
            return int(given)
        return max(1, len(os.sched_getaffinity(0)) // self.runners)
