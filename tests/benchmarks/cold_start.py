"""Time and memory from a fresh process to the first result, beside the stock loader.

usage: python tests/benchmarks/cold_start.py MODEL.pt2 INPUTS.npz [--repeats 7] [--json]

INPUTS.npz holds the flat inputs in order. Each run is a process of its own, and the loaders take
turns, so that a machine that changes its speed is fair to all. Both loaders keep something for the
next start, aoti the extracted package and the stock loader compiled probes: each is measured with
that at hand (warm cache) and without (fresh cache). Figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile

import numpy as np

from aoti._processes import Child
from aoti.bench.engines.registry import ENGINES
from aoti.bench.process.job import Finish, Inputs, Job
from aoti.package.package import Package

# By its name: the engine, and whether its caches are fresh.
LOADERS = {
    "aoti, warm cache": ("aoti", False),
    "aoti, fresh cache": ("aoti", True),
    "torch, warm cache": ("stock", False),
    "torch, fresh cache": ("stock", True),
}


def measure(engine: str, job: Job, inputs: Inputs, cache: str | None) -> tuple[float, float]:
    """Seconds and peak MB of one fresh process, with this directory for caches or a fresh one."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = cache or scratch
        caches = {"TORCHINDUCTOR_CACHE_DIR": directory, "AOTI_CACHE_DIR": f"{directory}/aoti"}
        serve = "aoti.bench.process.serve:serve", ENGINES[engine].target
        with Child(*serve, job, inputs, environment=caches, scratch=scratch) as child:
            started = child.ask()
            peak = child.ask(Finish()).peak_resident
            return (started.answered_ns - child.started_ns) / 1e9, peak / 1e6


def compare(model: str, inputs: str, repeats: int) -> dict[str, dict[str, float]]:
    """Medians per loader: seconds, MB."""
    with Package(model) as package:
        job = Job(model, package.select(None), "sync", runners=1, threads=1)
    with np.load(inputs) as file:
        arrays = Inputs([file[name] for name in file])
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
    with tempfile.TemporaryDirectory() as warm:
        for engine in ("aoti", "stock"):
            measure(engine, job, arrays, warm)
        for _ in range(repeats):
            for name, (engine, fresh) in LOADERS.items():
                runs[name].append(measure(engine, job, arrays, None if fresh else warm))
    return {
        name: {
            "seconds": statistics.median(seconds for seconds, _ in values),
            "megabytes": statistics.median(megabytes for _, megabytes in values),
        }
        for name, values in runs.items()
    }


def show(figures: dict[str, dict[str, float]]) -> None:
    """Draw the figures as bars."""
    ours = figures["aoti, warm cache"]
    slowest = max(figure["seconds"] for figure in figures.values())
    for name, figure in figures.items():
        bar = "█" * max(1, round(30 * figure["seconds"] / slowest))
        factor = "" if figure is ours else f"  {figure['seconds'] / ours['seconds']:.0f}x"
        print(
            f"  {name:<19} {bar:<30} {figure['seconds']:6.2f} s  {figure['megabytes']:4.0f} MB"
            f"{factor}"
        )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = compare(arguments.model, arguments.inputs, arguments.repeats)
    if arguments.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
    else:
        show(figures)


if __name__ == "__main__":
    main()
