"""Statistics of the times of calls."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from aoti import golden
from aoti.bench.process.timing import Round
from aoti.bench.report.report import Difference, Latency, Ratio

_BINS = 48


def samples(rounds: Sequence[Round]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The stored times of all rounds, in milliseconds."""
    return np.concatenate([np.frombuffer(r.kept, np.int64) for r in rounds]) / 1e6


def latency(rounds: Sequence[Round]) -> Latency:
    """Percentiles of the stored times; minimum, maximum and mean of all times."""
    median, p90, p99 = np.percentile(samples(rounds), (50, 90, 99))
    return Latency(
        median=float(median),
        min=min(r.least for r in rounds) / 1e6,
        mean=sum(r.total for r in rounds) / sum(r.calls for r in rounds) / 1e6,
        p90=float(p90),
        p99=float(p99),
        max=max(r.largest for r in rounds) / 1e6,
    )


def medians(rounds: Sequence[Round]) -> tuple[float, ...]:
    """The median of each round, in milliseconds."""
    return tuple(float(np.median(samples([r]))) for r in rounds)


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values without the lowest and the highest tenth of them."""
    outer = len(values) // 10
    inner = sorted(values)[outer : len(values) - outer]
    return inner[0], inner[-1]


def spread(values: Sequence[float]) -> float | None:
    """Half of the `middle` range relative to the median; None for a single value."""
    if len(values) < 2:
        return None
    low, high = middle(values)
    return (high - low) / 2 / statistics.median(values)


def ratio(own: Sequence[float], first: Sequence[float]) -> Ratio:
    """The ratios of two engines, round by round."""
    ratios = [a / b for a, b in zip(own, first, strict=True)]
    return Ratio(statistics.median(ratios), *middle(ratios))


def bins(engines: Sequence[Sequence[Round]]) -> tuple[float, ...]:
    """Edges of the bins for all engines, in milliseconds, on a logarithmic scale.

    They range from the shortest call to the largest of the 99th percentiles.
    """
    low = min(r.least for rounds in engines for r in rounds) / 1e6
    high = max(float(np.percentile(samples(rounds), 99)) for rounds in engines)
    edges = np.geomspace(low, max(high, low * 1.1), _BINS + 1)
    return tuple(map(float, edges))


def histogram(rounds: Sequence[Round], edges: Sequence[float]) -> tuple[int, ...]:
    """The number of stored times in each bin."""
    counts, _ = np.histogram(samples(rounds), edges)
    return tuple(map(int, counts))


def difference(got: Sequence[Any], first: Sequence[Any]) -> Difference:
    """How much results differ from those of the first engine, over all outputs."""
    if len(got) != len(first):
        return Difference(None, f"{len(got)} outputs instead of {len(first)}")
    largest, reason = 0.0, None
    for number, (theirs, ours) in enumerate(zip(got, first, strict=True)):
        found = golden.compare(
            f"output {number}", ours.dtype.name, golden.wide(theirs), golden.wide(ours)
        )
        largest = max(largest, found.max_error)
        if found.reason is not None and reason is None:
            reason = f"output {number}: {found.reason}"
    return Difference(largest if math.isfinite(largest) else None, reason)
