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
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from figures import tell

from aoti._processes import Channel, Child
from aoti.bench.process import memory

LOADERS = ("aoti", "torch")


def hold(channel: Channel, loader: str, model: str, inputs: str, small: str, warm: bool) -> None:
    """Load a model in this process, say what that took, and keep it; all in milliseconds and MB."""
    import numpy as np

    with np.load(inputs) as file:
        arrays = [file[name] for name in file]
    if loader == "aoti":
        import aoti

        def load(path):
            return aoti.load(path, warmup=warm).run
    else:
        import torch

        def load(path):
            return torch._inductor.aoti_load_package(path).loader.run

        arrays = [torch.from_numpy(array) for array in arrays]
    first = load(small)  # noqa: F841 - is kept
    before, start = memory.private(), time.perf_counter()
    run = load(model)
    loaded, taken = time.perf_counter(), memory.private() - before
    run(arrays)
    channel.answer(((loaded - start) * 1e3, taken / 1e6, (time.perf_counter() - start) * 1e3))
    channel.receive()
    channel.answer(memory.proportional() / 1e6)
    channel.receive()


def compare(model: str, inputs: str, small: str, repeats: int) -> dict[str, float]:
    """Medians of both loaders, and the proportional memory of one process and of four."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        caches = {"AOTI_CACHE_DIR": f"{directory}/aoti",
                  "TORCHINDUCTOR_CACHE_DIR": f"{directory}/torch"}  # fmt: skip

        def child(loader: str, *, warm: bool) -> Child:
            job = "load:hold", loader, model, inputs, small, warm
            return Child(*job, environment=caches, path=(str(Path(__file__).parent),))

        for repeat in range(repeats + 1):
            for name in LOADERS:
                with child(name, warm=False) as run:
                    loaded, taken, answered = run.ask()
                if repeat == 0:  # fills caches
                    continue
                found.setdefault(f"{name} load, ms", []).append(loaded)
                found.setdefault(f"{name} first answer, ms", []).append(answered)
                found.setdefault(f"{name} private memory, MB", []).append(taken)
        figures = {name: statistics.median(values) for name, values in found.items()}
        for count in (1, 4):
            for name in LOADERS:
                with contextlib.ExitStack() as stack:
                    runs = [stack.enter_context(child(name, warm=True)) for _ in range(count)]
                    for run in runs:
                        run.ask()
                    figures[f"{name} x {count}, proportional MB"] = sum(
                        run.ask("how much?") for run in runs
                    )
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
    tell(figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
