"""Measuring: engines in processes of their own, and what is said of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti.bench.engines import registry
from aoti.bench.engines.registry import Kind
from aoti.bench.environment import Machine
from aoti.bench.run import measure
from aoti.bench.settings import Settings

TESTS = str(Path(__file__).parents[1])
QUICK = Settings(duration=0.06, rounds=3, warmup=0.0, threads=1)


@pytest.fixture
def fakes(monkeypatch):
    """Engines with faults, under names of their own; and one that is not installed."""
    monkeypatch.syspath_prepend(TESTS)
    made = {
        name.lower(): Kind(f"bench_engines:{name}", {}, binds=True)
        for name in ("Slow", "Wrong", "Raising", "Dying", "Hanging")
    }
    missing = Kind("nowhere:Nothing", {"no_such_library": "no-such-library"})
    monkeypatch.setattr("aoti.bench.run.ENGINES", {**registry.ENGINES, **made, "missing": missing})


@pytest.fixture
def mlp_path(packages):
    return packages / "mlp.pt2"


def test_a_slowed_engine_shows_up_as_slower_and_a_wrong_one_as_wrong(fakes, mlp_path):
    report = measure(mlp_path, engines=["slow", "wrong"], dims={"batch": [1, 64]}, settings=QUICK)
    assert [engine.label for engine in report.engines] == ["aoti", "slow", "wrong"]
    assert [case.sizes for case in report.cases] == [{"batch": 1}, {"batch": 64}]
    for number in (0, 1):
        ours, slow, wrong = report.of_case(number)
        assert ours.latency_ms.median < 2 < slow.latency_ms.min
        assert slow.ratio.low > 2
        assert (slow.difference.largest, slow.difference.reason) == (0, None)
        assert wrong.difference.largest == pytest.approx(0.001, rel=1e-3)
        assert "elements differ" in wrong.difference.reason
    assert any("wrong gives other results than aoti" in note for note in report.notes)


def test_engines_that_cannot_run_are_listed_with_the_reason(fakes, mlp_path):
    names = ["missing", "raising", "dying", "eager", "onnxruntime"]
    report = measure(mlp_path, engines=names, settings=QUICK)
    reasons = {skipped.label: skipped.reason for skipped in report.skipped}
    assert [engine.label for engine in report.engines] == ["aoti"]
    assert list(reasons) == ["missing", "eager", "onnxruntime", "raising", "dying"]
    assert reasons["missing"] == "no_such_library is not installed: pip install no-such-library"
    assert reasons["raising"] == "OSError: the model is"
    assert reasons["dying"] == "its process was ended by SIGSEGV: no way to go on"
    assert "--source" in reasons["eager"]
    assert "--source" in reasons["onnxruntime"] or "not installed" in reasons["onnxruntime"]


def test_the_figures_fit_together(mlp_path):
    report = measure(mlp_path, shapes={"x": [5, 10]}, settings=Settings(duration=0.1, rounds=4))
    (found,) = report.measurements
    times = found.latency_ms
    assert times.min <= times.median <= times.p90 <= times.p99 <= times.max
    assert times.min <= times.mean <= times.max
    assert 0 < found.cpu_ms < times.max
    assert len(found.rounds_ms) == 4
    assert found.low_ms <= sorted(found.rounds_ms)[1] <= found.high_ms
    assert found.rows_per_second == pytest.approx(5 * found.calls_per_second)
    assert 0 < sum(found.histogram) <= found.calls
    assert (found.ratio, found.difference) == (None, None)
    (engine,) = report.engines
    start = engine.start
    parts = start.import_ms + start.load_ms + start.first_call_ms
    assert parts == pytest.approx(start.answer_ms)
    assert engine.memory.library_private > 1e7
    assert engine.memory.peak_resident >= engine.memory.resident > engine.memory.library_private
    assert engine.versions["aoti"] == aoti.__version__
    assert report.settings.threads >= 1
    assert report.machine.usable >= 1


def test_the_report_is_json_of_a_stated_form(fakes, mlp_path):
    report = measure(mlp_path, engines=["slow", "missing"], settings=QUICK)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["version"] == 1
    assert set(document) == {"version", *(field.name for field in fields(report))}
    assert set(document["machine"]) == {field.name for field in fields(Machine)}
    assert document["cases"] == [{"sizes": {"batch": 1}, "shapes": {"x": [1, 10]}, "rows": 1}]
    assert document["settings"]["threads"] == 1
    assert document["skipped"][0]["label"] == "missing"
    slow = document["measurements"][1]
    assert slow["engine"] == "slow"
    assert set(slow["latency_ms"]) == {"median", "min", "mean", "p90", "p99", "max"}
    assert set(slow["ratio"]) == {"median", "low", "high"}
    assert len(document["bins_ms"][0]) == len(slow["histogram"]) + 1


@pytest.mark.parametrize("mode", ["async", "bound"])
@pytest.mark.parametrize("runners", [1, 2])
def test_every_mode_measures(mlp_path, mode, runners):
    settings = Settings(mode=mode, runners=runners, duration=0.05, rounds=2, warmup=0, threads=1)
    (found,) = measure(mlp_path, settings=settings).measurements
    assert found.calls >= 2
    assert found.calls_per_second > 0


def test_calls_of_unknown_structure_cannot_be_bound(packages):
    settings = Settings(duration=0.05, rounds=1, warmup=0)
    assert measure(packages / "registered.pt2", settings=settings).measurements[0].calls > 0
    with pytest.raises(aoti.ConfigError, match="types that only the exporting"):
        measure(packages / "registered.pt2", settings=replace(settings, mode="bound"))


def test_an_engine_without_bound_calls_is_listed(mlp_path):
    report = measure(mlp_path, engines=["stock"], settings=Settings(mode="bound", duration=0.05))
    assert report.skipped[0].reason in (
        "it does not support bound inputs",
        "torch is not installed: pip install 'aoti-runtime[export]'",
    )


def test_packages_are_compared_with_each_other(packages):
    report = measure(packages / "mlp.pt2", against=[packages / "stock.pt2"], settings=QUICK)
    assert [engine.label for engine in report.engines] == ["aoti", "aoti stock.pt2"]
    assert report.measurements[1].difference.reason is None


@pytest.mark.parametrize("name", "tree dtypes shared layouts lookup derived inplace".split())
def test_inputs_are_made_for_any_signature(packages, name):
    report = measure(packages / f"{name}.pt2", settings=Settings(duration=0.02, rounds=1, warmup=0))
    assert report.measurements[0].calls > 0


def test_given_inputs_are_used(mlp_path, rows):
    report = measure(mlp_path, inputs=[rows], settings=QUICK)
    assert (report.cases[0].sizes, report.cases[0].rows) == ({"batch": 3}, 3)
    with pytest.raises(aoti.InputError, match="expected float32"):
        measure(mlp_path, inputs=[rows.astype(np.float64)], settings=QUICK)
    with pytest.raises(aoti.InputError, match="takes 1 inputs, got 2"):
        measure(mlp_path, inputs=[rows, rows], settings=QUICK)
    with pytest.raises(aoti.ConfigError, match="pass inputs, or sizes"):
        measure(mlp_path, inputs=[rows], dims={"batch": [1]}, settings=QUICK)


@pytest.mark.parametrize(("load", "said"), [(0.1, False), (1000.0, True)])
def test_a_busy_machine_is_told(mlp_path, monkeypatch, load, said):
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    notes = measure(mlp_path, settings=QUICK).notes
    assert any("the machine was busy" in note for note in notes) is said


def test_progress_is_told(mlp_path):
    told = []
    measure(mlp_path, settings=QUICK, progress=lambda what, part: told.append((what, part)))
    assert told[0] == ("starting aoti", 0)
    assert told[-1] == ("done", 1)
    assert [part for _, part in told] == sorted(part for _, part in told)


def test_importing_it_imports_neither_numpy_nor_torch(run_python):
    program = """
import sys, aoti.bench
print(*sorted({"numpy", "torch", "rich", "subprocess"} & set(sys.modules)))
"""
    assert run_python(program) == "\n"


# -- what is left behind ---------------------------------------------------------------------------

HANG = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run in background
sys.path.insert(0, {TESTS!r})
from aoti.bench import run
from aoti.bench.engines import registry
registry.ENGINES["stock"] = registry.Kind("bench_engines:Hanging", {{}})
from aoti.cli.group import main
main()
"""


def lives(pid: int) -> bool:
    """Whether there is a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_benchmark_leaves_nothing_behind(mlp_path, tmp_path, how):
    scratch, mark = tmp_path / "scratch", tmp_path / "pid"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "AOTI_TEST_MARK": str(mark)}
    command = ["bench", str(mlp_path), "--compare", "stock"]
    with subprocess.Popen(
        [sys.executable, "-c", HANG, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        patience = time.monotonic() + 60
        while not (mark.exists() and mark.read_text()) and time.monotonic() < patience:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        child = int(mark.read_text())
        assert lives(child)
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    assert (out, err.strip()) == ("", "")
    while (lives(child) or any(scratch.iterdir())) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not lives(child)
    assert list(scratch.iterdir()) == []
