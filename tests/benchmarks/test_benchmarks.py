"""The benchmarks run, at a size that says nothing about speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from aoti.bench.run import measure
from aoti.bench.settings import Settings

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


def test_the_benchmark_of_batching_runs(batch_packages, tmp_path):
    np.savez(tmp_path / "inputs.npz", input=np.ones((1, 4), np.float32))
    arguments = ["--clients", 8, "--seconds", 0.1, "--rounds", 1]
    figures = figures_of(
        "batching", batch_packages / "wide.pt2", tmp_path / "inputs.npz", *arguments
    )
    assert figures["joined over separate"] > 0
    assert 1 < figures["calls per joined run"] <= 8


@pytest.mark.skipif(not find_spec("kserve"), reason="needs 'aoti-runtime[serve]'")
def test_the_benchmark_of_servers_runs(minilm):
    arguments = ["--tokens", 4, "--clients", 4, "--seconds", 1, "--rounds", 1]
    figures = figures_of("serving", minilm, *arguments)
    assert figures["joined over separate"] > 0
    assert figures["joined, p99, ms"] >= figures["joined, p50, ms"] > 0


def test_the_simulation_of_many_nodes_runs():
    figures = figures_of("rollout", "--nodes", 100)
    slow, fast = (
        figures[f"package everywhere, {w}, s"] for w in ("registry alone", "nodes pass it on")
    )
    assert slow > fast > 0
    slow, fast = (figures[f"load x 2.0, ready in {n} s: refusals end after, s"] for n in (30, 2))
    assert slow == pytest.approx(fast + 28)


@pytest.mark.skipif(not find_spec("ray"), reason="needs Ray: pip install 'aoti-runtime[ray]'")
def test_the_benchmark_of_ray_data_runs(batch_packages):
    figures = figures_of("ray_data", batch_packages / "wide.pt2", "--rows", 2000, "--rounds", 1)
    assert figures["2 workers over 1"] > 0
    assert figures["2 workers, MB of weights"] < 1.3 * figures["1 worker, MB of weights"]


def test_page_and_picture_are_written_from_what_was_measured(packages, tmp_path):
    pytest.importorskip("matplotlib")
    quick = Settings(duration=0.05, rounds=2, warmup=0, threads=1)
    models = {
        "minilm": measure(packages / "mlp.pt2", engines=["openvino"], settings=quick).to_dict(),
        "silero": measure(packages / "stock.pt2", settings=quick).to_dict(),
    }
    start = {"aoti, warm cache": {"seconds": 0.5, "megabytes": 145.0}}
    start["torch, warm cache"] = {"seconds": 5.0, "megabytes": 311.0}
    figures = {
        "machine": "a machine",
        "date": "2026-01-31",
        "starts": {"MiniLM-L6": start},
        "calls": {"aoti call, us": 2.1},
        "loads": {"aoti load, ms": 3.0, "torch load, ms": 140.0},
        "models": models,
    }
    (tmp_path / "benchmarks.json").write_text(json.dumps(figures))
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks"]
    command += ["--again", "--output", str(tmp_path)]
    subprocess.run(command, cwd=HERE.parents[1], check=True, capture_output=True)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| MiniLM-L6: torch, warm cache | 5.00 s | 311 MB | 10.0 |" in page
    assert "| load, ms | 3.00 | 140 |" in page
    assert "2026-01-31" in page and "a machine" in page
    assert "Not run: openvino" in page
    assert 0 < (tmp_path / "benchmarks.svg").stat().st_size < 40_000
