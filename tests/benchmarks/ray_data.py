"""What a second worker of Ray Data brings: rows a second, and the memory that it costs.

usage: python ray_data.py MODEL.pt2 [--rows 100000] [--batch 256] [--rounds 3] [--json]

MODEL.pt2 takes one array of rows. The dataset is in Ray's object store before the clock starts. One
worker and two take turns, with one thread each. A rate is that of the rows after the first result,
so it leaves out the start of the workers. Two workers need two CPUs that have nothing else to do:
the share of the CPUs says whether they had them.

Memory is proportional (``Pss``: a page that n processes share counts a nth for each), while all
workers have the model: that of the mapped weights, and that of the whole processes. Figures are
medians; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray
from figures import tell
from turns import in_turns

import aoti
from aoti.serving.ray import Predictor


def made(batch: dict[str, Any], name: str, sizes: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """A column of rows for the model, and one of their numbers."""
    numbers = batch["id"]
    column = np.zeros((len(numbers), *sizes), dtype)
    column += numbers.reshape(-1, *[1] * len(sizes)).astype(dtype)
    return {name: column, "row": numbers}


class Clocked(Predictor):
    """A predictor that says with each row which process computed it, and what CPU time that had."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the model on a batch."""
        found = super().__call__(batch)
        facts = {"pid": os.getpid(), "cpu": time.process_time()}
        return {**found, **{name: np.full(len(batch["row"]), fact) for name, fact in facts.items()}}


class Rate(NamedTuple):
    """What a run did after its first result."""

    rows_a_second: float
    rows_a_cpu_second: float
    share: float  # of the CPU that it could have had


def run(dataset: Any, model: str, batch: int, workers: int) -> Rate:
    """Run the model on all rows, which must come out in their order."""
    result = dataset.map_batches(
        Clocked,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={"keep": ["row"]},
        compute=ray.data.ActorPoolStrategy(size=workers),
        batch_size=batch,
    )
    iterator: Iterator[dict[str, Any]] = iter(result.iter_batches(batch_size=None))
    blocks = [next(iterator)]
    start = time.perf_counter()
    blocks += iterator
    seconds = time.perf_counter() - start
    rows, pids, clocks = (
        np.concatenate([b[name] for b in blocks]) for name in ("row", "pid", "cpu")
    )
    assert np.array_equal(rows, np.arange(len(rows)))
    count = len(rows) - len(blocks[0]["row"])
    cpu = sum(np.ptp(clocks[pids == pid]) for pid in set(pids))
    return Rate(count / seconds, len(rows) / cpu, cpu / seconds / workers)


class Weighed(Predictor):
    """A predictor that says what memory it has."""

    def megabytes(self) -> tuple[float, float]:
        """The weights' part of this process's memory, and all of it."""
        file = str(self.model.info().weights_file)
        parts = Path("/proc/self/smaps").read_text().split("VmFlags")
        sizes = [(file in part, re.search(r"\nPss: +(\d+)", part)) for part in parts]
        kilobytes = [(of_weights, int(size[1])) for of_weights, size in sizes if size]
        return (
            sum(size for of_weights, size in kilobytes if of_weights) * 1.024e-3,
            sum(size for _, size in kilobytes) * 1.024e-3,
        )


def memory(model: str, workers: int) -> tuple[float, float]:
    """Megabytes of the weights and of all, in all workers together."""
    actors = [ray.remote(num_cpus=0)(Weighed).remote(model, warmup=True) for _ in range(workers)]
    ray.get([actor.megabytes.remote() for actor in actors])  # all have loaded the model
    sizes = ray.get([actor.megabytes.remote() for actor in actors])
    for actor in actors:
        ray.kill(actor)
    return sum(size for size, _ in sizes), sum(size for _, size in sizes)


def compare(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures of the command line's model."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    with aoti.load(arguments.model) as model:
        (spec,) = model.inputs or ()
    facts = {"name": spec.name, "sizes": (spec.shape or ())[1:], "dtype": spec.dtype}
    numbers = ray.data.range(arguments.rows, override_num_blocks=32)
    dataset = numbers.map_batches(made, fn_kwargs=facts).materialize()
    run_of = partial(run, dataset, arguments.model, arguments.batch)
    found = in_turns({f"{n}": partial(run_of, n) for n in (1, 2)}, arguments.rounds)
    one, two = (Rate(*map(statistics.median, zip(*found[n], strict=True))) for n in ("1", "2"))
    ratios = [b.rows_a_second / a.rows_a_second for a, b in zip(*found.values(), strict=True)]
    (weights, whole), (weights_of_two, whole_of_two) = (memory(arguments.model, n) for n in (1, 2))
    return {
        "1 worker, rows/s": one.rows_a_second,
        "2 workers, rows/s": two.rows_a_second,
        "2 workers over 1": statistics.median(ratios),
        "1 worker, rows per second of CPU": one.rows_a_cpu_second,
        "2 workers, rows per second of CPU": two.rows_a_cpu_second,
        "1 worker, share of a CPU": one.share,
        "2 workers, share of two CPUs": two.share,
        "1 worker, MB of weights": weights,
        "2 workers, MB of weights": weights_of_two,
        "1 worker, MB": whole,
        "2 workers, MB": whole_of_two,
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.model = str(Path(arguments.model).absolute())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, log_to_driver=False, logging_level="error")
    tell(compare(arguments), as_json=arguments.json)
    ray.shutdown()


if __name__ == "__main__":
    main()
