"""What a call costs, and what threads bring, beside a C++ loop and the stock loader.

usage: OMP_NUM_THREADS=1 python calls.py PACKAGES [--rounds 300] [--json]

PACKAGES is the directory that tests/packages.py filled. Everything runs in one process and in
turns, so that what else the machine does hits all alike. Of each figure's rounds the tenth
percentile counts: what the code costs where nobody else was on the core. Figures of threads are
medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import tell
from turns import in_turns, per_call

import aoti
from aoti.engine._core._bound import time_runs

CALLS = 300  # a turn of some 3 ms: mostly shorter than what the scheduler gives
TURN = 0.15  # seconds that one thread calls for: a core that slept takes a while to wake up
SIZES = (4, 256, 1024)  # rows of the calls that threads make


def calls_a_second(call: Callable[[], object], threads: int, calls: int) -> float:
    """Calls a second, of all threads together."""
    workers = [threading.Thread(target=per_call, args=(call, calls)) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * calls / (time.perf_counter() - start)


def gain_of_threads(call: Callable[[], object], rounds: int) -> float:
    """What two threads get done, over what one does."""
    calls = int(TURN / per_call(call, CALLS) * 1e6)
    gains = []
    for _ in range(rounds):
        one, two = (calls_a_second(call, threads, calls) for threads in (1, 2))
        gains.append(two / one)
    return statistics.median(gains)


def undisturbed(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """What each measured where nobody else was on the core."""
    figures = in_turns(contestants, rounds)
    return {name: sorted(values)[len(values) // 10] for name, values in figures.items()}


def loop(bound: Callable[[], object]) -> Callable[[], float]:
    """Measure the same run in C++."""
    return lambda: time_runs(bound, CALLS) / CALLS * 1e6


def turn(call: Callable[[], object]) -> Callable[[], float]:
    """Measure a call."""
    return lambda: per_call(call, CALLS)


def gains(model: Any, stock: Any, size: int, rounds: int, title: str) -> dict[str, float]:
    """What two threads bring, with either loader."""
    import torch

    rows = np.random.default_rng(0).standard_normal((size, 10), np.float32)
    calls = {
        "aoti": lambda: model(rows),
        "stock": lambda: stock(torch.from_numpy(rows)).numpy(),
    }
    return {
        f"{name}, 2 threads over 1, {title}": gain_of_threads(call, min(rounds, 15))
        for name, call in calls.items()
    }


def stock_export(path: Path, rounds: int) -> dict[str, float]:
    """The same network as torch's own exporter compiles it by default."""
    model = aoti.load(path, num_runners=2)
    from torch._inductor.package import load_package

    stock = load_package(str(path), num_runners=2)
    return gains(model, stock, SIZES[0], rounds, f"{SIZES[0]} rows, stock export")


def small_net(path: Path, rounds: int) -> dict[str, float]:
    """One array in, one out."""
    model = aoti.load(path, num_runners=2)
    import torch  # after aoti's own loading, to show that both live in one process
    from torch._inductor.package import load_package

    stock = load_package(str(path), num_runners=2)
    rows = np.random.default_rng(0).standard_normal((4, 10), np.float32)
    tensor = torch.from_numpy(rows)
    bound, bound_new = model.bind(rows, out=model(rows)), model.bind(rows)

    def from_numpy() -> object:
        return stock(torch.from_numpy(rows)).numpy()

    figures = undisturbed(
        {
            "C++ loop, us": loop(bound_new),
            "aoti call, us": turn(lambda: model(rows)),
            "aoti bound, us": turn(bound),
            "aoti bound to inputs only, us": turn(bound_new),
            "aoti call with a torch tensor, us": turn(lambda: model(tensor)),
            "aoti run of a torch tensor, us": turn(lambda: model.run([tensor])),
            "stock run of a torch tensor, us": turn(lambda: stock.loader.run([tensor])),
            "stock call from numpy, us": turn(from_numpy),
        },
        rounds,
    )
    for size in SIZES:
        figures |= gains(model, stock, size, rounds, f"{size} rows")
    base = figures["C++ loop, us"]
    figures["aoti call over the loop, us"] = figures["aoti call, us"] - base
    figures["aoti bound over the loop, us"] = figures["aoti bound, us"] - base
    figures["stock call over aoti call"] = (
        figures["stock call from numpy, us"] / figures["aoti call, us"]
    )
    stock_run = figures["stock run of a torch tensor, us"]
    figures["aoti call over stock run, of a torch tensor"] = (
        figures["aoti call with a torch tensor, us"] / stock_run
    )
    figures["aoti run over stock run, of a torch tensor"] = (
        figures["aoti run of a torch tensor, us"] / stock_run
    )
    return figures


def nested(path: Path, rounds: int, first: float) -> dict[str, float]:
    """Dicts of dicts and lists, eight arrays in and six out; `first` is what one and one cost."""
    model = aoti.load(path)
    import torch
    from torch._inductor.package import load_package

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from packages import Pair  # gives torch a name for it

    stock = load_package(str(path))

    def arguments(x: Any, mask: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args = {"x": x, "y": {"z": x}}, [x, x], Pair(x, x)
        return args, {"options": OrderedDict(scale=x), "mask": mask}

    x = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    args, kwargs = arguments(x, x > 0)
    torch_args, torch_kwargs = arguments(torch.from_numpy(x), torch.from_numpy(x > 0))
    flat = [x > 0 if spec.dtype == "bool" else x for spec in model.signature.inputs]
    figures = undisturbed(
        {
            "nested, C++ loop, us": loop(model.bind(*args, **kwargs)),
            "nested, aoti run, us": turn(lambda: model.run(flat)),
            "nested, aoti call, us": turn(lambda: model(*args, **kwargs)),
            "nested, stock call, us": turn(lambda: stock(*torch_args, **torch_kwargs)),
        },
        rounds,
    )
    base = figures["nested, C++ loop, us"]
    further = len(flat) + len(model.run(flat)) - 2
    figures["each further array, us"] = (figures["nested, aoti run, us"] - base - first) / further
    figures["nested, aoti's overhead over stock's"] = (figures["nested, aoti call, us"] - base) / (
        figures["nested, stock call, us"] - base
    )
    return figures


def measure(packages: Path, rounds: int) -> dict[str, float]:
    """All figures."""
    figures = small_net(packages / "mlp.pt2", rounds)
    first = figures["aoti call over the loop, us"]
    figures |= stock_export(packages / "stock.pt2", rounds)
    return figures | nested(packages / "tree.pt2", rounds, first)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    figures = measure(options.packages, options.rounds)
    tell(figures, as_json=options.json)


if __name__ == "__main__":
    main()
