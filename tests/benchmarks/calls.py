"""What a call costs, and what threads bring, beside a C++ loop and the stock loader.

usage: OMP_NUM_THREADS=1 python calls.py MODEL.pt2 INPUTS.npz [--rounds 15] [--json]

INPUTS.npz holds the flat inputs in order; the model takes them as positional arguments. Everything
runs in one process and in turns. Figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np

import aoti

CALLS = 20_000


def per_call(call: Callable[[], object], calls: int = CALLS) -> float:
    """Microseconds of one call."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def calls_a_second(call: Callable[[], object], threads: int) -> float:
    """Calls a second, of all threads together."""
    workers = [threading.Thread(target=per_call, args=(call,)) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * CALLS / (time.perf_counter() - start)


def measure(path: str, inputs: list[np.ndarray], repeats: int) -> dict[str, float]:
    """All figures for one model."""
    model = aoti.load(path, num_runners=2)
    import torch  # after aoti's own loading, to show that both live in one process
    from torch._inductor.package import load_package

    stock = load_package(path, num_runners=2)
    arrays = tuple(inputs)

    def ours() -> object:
        return model(*arrays)

    def torchs() -> object:
        return stock(*(torch.from_numpy(array) for array in arrays)).numpy()

    tensors = [torch.from_numpy(array) for array in arrays]
    targets = model.run(arrays)
    bound = model.bind(*arrays, out=model._rebuild(targets))

    rounds: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rounds.setdefault(name, []).append(value)

    for _ in range(repeats):
        note("C++ loop, us", model._loader.time_runs(arrays, CALLS) / CALLS * 1e6)
        note("aoti call, us", per_call(ours))
        note("torch call, us", per_call(torchs, CALLS // 4))
        note("aoti bound, us", per_call(bound))
        note("aoti run of tensors, us", per_call(lambda: model.run(tensors)))
        note("stock run of tensors, us", per_call(lambda: stock.loader.run(tensors)))
        for name, call in (("aoti", ours), ("torch", torchs)):
            one = calls_a_second(call, 1)
            two = calls_a_second(call, 2)
            note(f"{name}, 2 threads over 1", two / one)
    figures = {name: statistics.median(values) for name, values in rounds.items()}
    figures["aoti over C++ loop, us"] = figures["aoti call, us"] - figures["C++ loop, us"]
    figures["aoti bound over C++ loop, us"] = figures["aoti bound, us"] - figures["C++ loop, us"]
    figures["torch call over aoti call"] = figures["torch call, us"] / figures["aoti call, us"]
    return figures


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with np.load(arguments.inputs) as file:
        figures = measure(arguments.model, [file[name] for name in file], arguments.rounds)
    if arguments.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
    else:
        for name, value in figures.items():
            print(f"  {name:<28} {value:8.2f}")


if __name__ == "__main__":
    main()
