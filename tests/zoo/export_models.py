"""Export models of the zoo one after another, with aoti and perhaps as PyTorch does by default.

usage: python tests/zoo/export_models.py [--stock] NAME...

For each model, build/zoo/NAME gets the package `model.pt2`; `calls.npz`, the arguments and eager's
results for all sizes; and figures in `ours.json` and `stock.json`. All runs in this process.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from catalogue import Entry, Sample, entries, made, tensors
from steps import RESULTS
from torch.export import Dim, ShapesCollection

import aoti


def stored(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The elements for a file of numpy, which has no bfloat16."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy(force=True)


def call(module: torch.nn.Module, arguments: dict[str, Any]) -> tuple[Any, float]:
    """The result of a module and the seconds that it took; a cache among the arguments stays."""
    arguments = copy.deepcopy(arguments)
    start = time.perf_counter()
    result = module(**arguments)
    return result, time.perf_counter() - start


def milliseconds(module: torch.nn.Module, arguments: dict[str, Any]) -> float:
    """The shortest of many calls."""
    found, end = [], time.perf_counter() + 0.1
    while len(found) < 5 or time.perf_counter() < end:
        found.append(call(module, arguments)[1])
    return 1e3 * min(found)


class Clock:
    """Seconds since it was made: of time, and of all cores for this process and its children."""

    def __init__(self) -> None:
        self.start, self.used = time.perf_counter(), os.times()

    def read(self) -> dict[str, float]:
        now = os.times()
        cpu = sum(now[:4]) - sum(self.used[:4])
        return {"seconds": time.perf_counter() - self.start, "cpu_seconds": cpu}


def ours(
    entry: Entry,
    sample: Sample,
    calls: list[dict[str, Any]],
    directory: Path,
) -> dict[str, Any]:
    """Export with aoti, and write down what eager gives."""
    arrays = {}
    with torch.no_grad():
        for number, arguments in enumerate(calls):
            inputs = tensors(arguments)
            arrays |= {f"in/{number}/{i}": stored(t) for i, t in enumerate(inputs)}
            results = tensors(call(sample.module, arguments)[0])
            arrays |= {f"out/{number}/{i}": stored(t) for i, t in enumerate(results)}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        eager = milliseconds(sample.module, calls[0])
        torch.set_num_threads(threads)
    np.savez(directory / "calls.npz", **arrays)
    clock = Clock()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        exported = aoti.export(
            sample.module,
            kwargs=calls[0],
            path=directory / "model.pt2",
            dynamic_shapes=sample.shapes,
            in_process=True,
        )
    used = clock.read()
    said = sorted({str(w.message) for w in caught if "aoti" in w.filename or "zoo" in w.filename})
    return {**used, "bytes": exported.bytes, "eager_ms": eager, "warnings": said}


def free_sizes(shapes: ShapesCollection, value: Any, spec: Any) -> None:
    """Make the sizes that have a name in `spec` dynamic for `torch.export`."""
    if spec and all(isinstance(key, int) for key in spec):
        for tensor in tensors(value):
            shapes[tensor] = {dim: Dim.AUTO for dim, name in spec.items() if name}
    elif spec:
        for key, part in spec.items():
            free_sizes(shapes, value[key], part)


@functools.cache
def register_caches() -> None:
    """Make `torch.export` take the caches of transformers."""
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    register_dynamic_cache_export_support()


def stock(
    entry: Entry, sample: Sample, calls: list[dict[str, Any]], directory: Path
) -> dict[str, Any]:
    """Export as PyTorch does by default."""
    from torch._inductor import aoti_compile_and_package

    if entry.kind == "decoders":
        register_caches()
    shapes = ShapesCollection()
    free_sizes(shapes, calls[0], sample.shapes)
    clock = Clock()
    with torch.no_grad():
        program = torch.export.export(sample.module, (), calls[0], dynamic_shapes=shapes)
        aoti_compile_and_package(program, package_path=str(directory / "stock.pt2"))
    return clock.read()


def attempt(kind: Callable[..., dict[str, Any]], name: str, entry: Entry) -> None:
    """Export one model, and write down the figures or the error."""
    directory = RESULTS / name
    result = directory / f"{kind.__name__}.json"
    if result.exists():
        return
    print(name, kind.__name__, flush=True)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        found = kind(entry, *made(entry), directory)
    except Exception as error:  # the failures of a model are results, too
        found = {"error": f"{type(error).__name__}: {error}"}
        traceback.print_exc()
    result.write_text(json.dumps(found, indent=1))


def warm_up(kinds: tuple[Callable[..., dict[str, Any]], ...]) -> None:
    """Export one layer, so that no model pays for what a process does once."""
    layer = Sample(torch.nn.Linear(2, 2), lambda: {"input": torch.ones(3, 2)}, {"input": {0: "n"}})
    entry = Entry("layer", "warm-up", "torch", lambda: layer, ({},), 0.0, ci=False)
    with tempfile.TemporaryDirectory() as directory:
        for kind in kinds:
            kind(entry, layer, [layer.inputs()], Path(directory))


def main() -> None:
    known = entries()
    kinds = (ours, stock) if sys.argv[1] == "--stock" else (ours,)
    warm_up(kinds)
    for name in sys.argv[1:]:
        if name in known:
            for kind in kinds:
                attempt(kind, name, known[name])


if __name__ == "__main__":
    main()
