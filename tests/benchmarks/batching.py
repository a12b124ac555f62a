"""What joined calls bring: answers a second to many clients, with batching over without.

usage: OMP_NUM_THREADS=1 python batching.py MODEL.pt2 INPUTS.npz [--clients 64] [--seconds 2]
       [--rounds 5] [--runners 1] [--delay 0.002] [--dim NAME] [--json]

INPUTS.npz holds the arguments of one call by their names. Every client is a task of one event loop,
which calls `run_async` again as soon as it has its answer. Both models are loaded in one process
and take turns. Figures are medians of the rounds; the ratio is the median of their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from figures import tell
from turns import in_turns

import aoti


def answers_a_second(
    model: aoti.AOTIModel, inputs: Mapping[str, Any], clients: int, seconds: float
) -> float:
    """How many calls are answered each second."""

    async def client(end: float) -> int:
        count = 0
        while time.perf_counter() < end:
            await model.run_async(**inputs)
            count += 1
        return count

    async def main() -> float:
        start = time.perf_counter()
        counts = await asyncio.gather(*(client(start + seconds) for _ in range(clients)))
        return sum(counts) / (time.perf_counter() - start)

    return asyncio.run(main())


def compare(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures of the command line's model."""
    with np.load(arguments.inputs) as file:
        inputs = {name: file[name] for name in file}
    batching = aoti.Batching(max_delay=arguments.delay, dim=arguments.dim)
    load = partial(aoti.load, arguments.model, num_runners=arguments.runners, warmup=True)
    with load() as separate, load(batching=batching) as joined:
        models = {"separate": separate, "joined": joined}
        measured = in_turns(
            {
                name: partial(answers_a_second, model, inputs, arguments.clients, arguments.seconds)
                for name, model in models.items()
            },
            arguments.rounds,
        )
        info = joined.info()
    ratios = [b / a for a, b in zip(measured["separate"], measured["joined"], strict=True)]
    return {
        **{f"{name}, answers/s": statistics.median(found) for name, found in measured.items()},
        "joined over separate": statistics.median(ratios),
        "calls per joined run": info.calls / info.runs,
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runners", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.002)
    parser.add_argument("--dim")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = compare(arguments)
    tell(figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
