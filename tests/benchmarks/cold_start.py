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
import os
import statistics
import subprocess
import sys
import tempfile
import time

_AOTI = """
import sys
import numpy as np
import aoti
with np.load(sys.argv[2]) as file:
    inputs = [file[name] for name in file]
model = aoti.load(sys.argv[1])
assert np.isfinite(model.run(inputs)[0]).all()
assert "torch" not in sys.modules
"""

_STOCK = """
import sys
import numpy as np
import torch
with np.load(sys.argv[2]) as file:
    inputs = [torch.from_numpy(file[name]) for name in file]
model = torch._inductor.aoti_load_package(sys.argv[1])
assert np.isfinite(model.loader.run(inputs)[0].numpy()).all()
"""

# What makes the command line quick is no part of this: both are left to end as Python does.
LOADERS = {
    "aoti, warm cache": (_AOTI, False),
    "aoti, fresh cache": (_AOTI, True),
    "torch, warm cache": (_STOCK, False),
    "torch, fresh cache": (_STOCK, True),
}


def measure(program: str, model: str, inputs: str, cache: str | None) -> tuple[float, float]:
    """Seconds and peak MB of one fresh process, with this directory for caches or a fresh one."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = cache or scratch
        caches = {"TORCHINDUCTOR_CACHE_DIR": directory, "AOTI_CACHE_DIR": f"{directory}/aoti"}
        env = {**os.environ, **caches}
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, model, inputs],
            env=env,
            stderr=subprocess.PIPE,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        with process.stderr as stderr:
            said = stderr.read().decode()
        if process.returncode:
            raise SystemExit(f"a run failed:\n{said}")
        return seconds, usage.ru_maxrss / 1000


def compare(model: str, inputs: str, repeats: int) -> dict[str, dict[str, float]]:
    """Medians per loader: seconds, MB."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
    with tempfile.TemporaryDirectory() as warm:
        for program in (_AOTI, _STOCK):
            measure(program, model, inputs, warm)
        for _ in range(repeats):
            for name, (program, fresh) in LOADERS.items():
                runs[name].append(measure(program, model, inputs, None if fresh else warm))
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
