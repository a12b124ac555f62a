"""Load time and memory of a model with its weights outside, beside the stock loader.

usage: python tests/benchmarks/load.py MODEL.pt2 INPUTS.npz SMALL.pt2 [--repeats 7] [--json]

INPUTS.npz holds the flat inputs in order. Each load is in a process of its own that has loaded its
library and SMALL.pt2 before, so that what is measured is this model: seconds until it
is loaded, and private memory (``Anonymous`` of ``smaps_rollup``) that it adds. The loaders take
turns. Caches and the page cache are warm. Figures are medians; those of four processes at once are
of their proportional memory (``Pss``), where a page that n of them share counts a nth for each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

_HEAD = """
import sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
with np.load(sys.argv[2]) as file:
    inputs = [file[name] for name in file]

def memory(key):
    text = open("/proc/self/smaps_rollup").read()
    return int(text.partition(f"\\n{key}:")[2].split()[0]) / 1000

def measure(load, run):
    small = load(sys.argv[3])
    before, start = memory("Anonymous"), time.perf_counter()
    model = load(sys.argv[1])
    loaded, taken = time.perf_counter(), memory("Anonymous") - before
    run(model, inputs)
    print((loaded - start) * 1e3, taken, (time.perf_counter() - start) * 1e3, flush=True)
    sys.stdin.readline()
    print(memory("Pss"), flush=True)
    sys.stdin.readline()

"""

_AOTI = """
import aoti
measure(lambda path: aoti.load(path, warmup=len(sys.argv) > 4), lambda model, x: model.run(x))
"""

_STOCK = """
import torch
measure(
    torch._inductor.aoti_load_package,
    lambda model, x: model.loader.run([torch.from_numpy(a) for a in x]),
)
"""

LOADERS = {"aoti": _HEAD + _AOTI, "torch": _HEAD + _STOCK}


class Run:
    """A process that has loaded the model and waits."""

    def __init__(self, program: str, arguments: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.figures = self._read()

    def _read(self) -> list[float]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a run failed")
        return [float(word) for word in line.split()]

    def _go_on(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def proportional(self) -> float:
        """MB that it takes, with a share of what others use too."""
        self._go_on()
        return self._read()[0]

    def end(self) -> None:
        self._go_on()
        self._process.communicate()


def compare(model: str, inputs: str, small: str, repeats: int) -> dict[str, float]:
    """Medians of both loaders, and the proportional memory of one process and of four."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        env = {**os.environ, "AOTI_CACHE_DIR": f"{directory}/aoti",
               "TORCHINDUCTOR_CACHE_DIR": f"{directory}/torch"}  # fmt: skip
        for repeat in range(repeats + 1):
            for name, program in LOADERS.items():
                run = Run(program, [model, inputs, small], env)
                run.end()
                if repeat == 0:  # fills caches
                    continue
                loaded, memory, answered = run.figures
                found.setdefault(f"{name} load, ms", []).append(loaded)
                found.setdefault(f"{name} first answer, ms", []).append(answered)
                found.setdefault(f"{name} private memory, MB", []).append(memory)
        figures = {name: statistics.median(values) for name, values in found.items()}
        for count in (1, 4):
            for name, program in LOADERS.items():
                runs = [Run(program, [model, inputs, small, "warm"], env) for _ in range(count)]
                figures[f"{name} x {count}, proportional MB"] = sum(
                    run.proportional() for run in runs
                )
                for run in runs:
                    run.end()
    return figures


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("small")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = compare(arguments.model, arguments.inputs, arguments.small, arguments.repeats)
    if arguments.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
    else:
        for name, figure in figures.items():
            print(f"  {name:<32} {figure:9.2f}")


if __name__ == "__main__":
    main()
