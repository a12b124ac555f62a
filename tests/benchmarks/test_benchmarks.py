"""The benchmarks run, at a size that says nothing about speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def figures_of(script: str, *arguments: object) -> dict:
    command = [sys.executable, HERE / f"{script}.py", *map(str, arguments), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_the_benchmark_of_cold_starts_runs(packages, tmp_path, rows):
    np.savez(tmp_path / "inputs.npz", rows)
    model = packages / "mlp.pt2"
    figures = figures_of("cold_start", model, tmp_path / "inputs.npz", "--repeats", 1)
    assert figures["aoti, warm cache"]


def test_the_benchmark_of_calls_runs(packages):
    figures = figures_of("calls", packages, "--rounds", 1)
    assert figures["aoti call, us"] > 0
    assert figures["nested, aoti call, us"] > 0


def test_the_benchmark_of_the_checks_runs(packages):
    figures = figures_of("checks", packages / "mlp.pt2", packages / "dtypes.pt2", "--rounds", 2)
    assert (figures["one"]["inputs"], figures["many"]["inputs"]) == (1, 14)
    assert figures["one"]["checked"] > 0


def test_the_benchmark_of_loads_runs(weight_packages, tmp_path):
    np.savez(tmp_path / "inputs.npz", np.ones(64, np.float32))
    same, inputs = weight_packages / "same.pt2", tmp_path / "inputs.npz"
    command = [sys.executable, HERE / "load.py", same, inputs, weight_packages / "blob.pt2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [*command, "--repeats", "1", "--json"], env=environment, capture_output=True, check=True
    ).stdout
    assert json.loads(out)["aoti load, ms"] > 0
