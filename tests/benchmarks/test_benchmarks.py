"""The benchmarks run, at a size that says nothing about speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("script", "options", "figure"),
    [
        ("cold_start", ["--repeats", "1"], "aoti, warm cache"),
        ("calls", ["--rounds", "1"], "aoti call, us"),
    ],
)
def test_a_benchmark_runs(packages, tmp_path, rows, script, options, figure):
    np.savez(tmp_path / "inputs.npz", rows)
    command = [sys.executable, HERE / f"{script}.py", packages / "mlp.pt2", tmp_path / "inputs.npz"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [*command, "--json", *options], env=environment, capture_output=True, check=True
    ).stdout
    assert json.loads(out)[figure]


def test_the_benchmark_of_the_checks_runs(packages):
    command = [sys.executable, HERE / "checks.py", packages / "mlp.pt2", packages / "dtypes.pt2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [*command, "--rounds", "2", "--json"], env=environment, capture_output=True, check=True
    ).stdout
    figures = json.loads(out)
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
