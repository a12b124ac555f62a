"""What a call costs on a GPU, beside the raw run of PyTorch's own loader.

usage: python gpu_calls.py [--rounds 200]

Exports a 10-16-1 network on the GPU and times calls on torch tensors without waiting for their
results, in turns; of each figure's rounds the median counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch._inductor.package import load_package

import aoti

CALLS = 100


def per_call(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    spent = time.perf_counter() - start
    torch.cuda.synchronize()
    return spent / CALLS * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    mlp = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    mlp, x = mlp.eval().cuda(), torch.randn(4, 10, device="cuda:0")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mlp.pt2"
        aoti.export(mlp, (x,), path=path, in_process=True)
        model = aoti.load(path)
        stock = load_package(str(path))
        bound, host = model.bind(x, out=model(x)), x.cpu().numpy()
        contestants: dict[str, Callable[[], object]] = {
            "stock loader.run": lambda: stock.loader.run([x]),
            "stock call": lambda: stock(x),
            "bound call": bound,
            "call": lambda: model(x),
            "numpy in and out": lambda: model(host),
        }
        figures: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, call in contestants.items():
                figures[name].append(per_call(call))
        raw = statistics.median(figures["stock loader.run"])
        for name, found in figures.items():
            middle = statistics.median(found)
            print(f"{name:>20}: {middle:8.2f} us, {middle / raw:.2f} of loader.run")


if __name__ == "__main__":
    main()
