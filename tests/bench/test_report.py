"""Reports: on terminals of any width, in pipes, as Markdown, as a picture; the command line."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from aoti.bench.engines.registry import ENGINES
from aoti.bench.process.timing import Round
from aoti.bench.report.markdown import markdown
from aoti.bench.report.plot import save_picture
from aoti.bench.report.report import Difference, Ratio, Skipped
from aoti.bench.report.statistics import difference, latency, middle, ratio, spread
from aoti.bench.report.terminal import show
from aoti.bench.report.units import digits, duration
from aoti.bench.run import measure
from aoti.bench.settings import Settings
from aoti.cli.group import run

QUICK = ["--duration", "0.05", "--rounds", "2", "--warmup", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def report(packages):
    """Of two engines, which are both aoti, and one that did not run."""
    settings = Settings(duration=0.1, rounds=2, warmup=0, threads=1)
    stock = packages / "stock.pt2"
    found = measure(
        packages / "mlp.pt2", against=[stock], dims={"batch": [2, 8]}, settings=settings
    )
    first, *others = found.measurements
    others[0] = replace(others[0], ratio=Ratio(2.5, 2.4, 2.6), difference=Difference(3e-8, None))
    others[2] = replace(others[2], difference=Difference(None, "3 outputs instead of 1"))
    return replace(
        found,
        measurements=(first, *others),
        skipped=(Skipped("openvino", "openvino is not installed: pip install openvino"),),
        notes=("a [bold]note[/] with \x1b[31m in it",),
    )


def shown(report, monkeypatch, *, columns=None, encoding="utf-8", **environment):
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(report, file)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_a_pipe_gets_all_figures_and_no_colour(report, monkeypatch):
    text = shown(report, monkeypatch)
    assert "\x1b" not in text
    assert "2.50 (2.40 to 2.60)" in text
    assert "3e-08" in text
    assert "? WRONG" in text
    assert "not run: openvino: openvino is not installed" in text
    assert "a [bold]note[/] with \\x1b[31m in it" in text
    assert "rows/s" in text
    assert re.search(r"^aoti +[▁-█ ]+$", text, re.MULTILINE)
    assert "too narrow" not in text
    assert report.machine.cpu in text


@pytest.mark.parametrize("columns", [24, 40, 80])
def test_a_narrow_terminal_shows_what_matters_most(report, monkeypatch, columns):
    text = shown(report, monkeypatch, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "median" in text
    assert "too narrow" in text


def test_a_terminal_has_colour_unless_it_is_not_wanted(report, monkeypatch):
    assert "\x1b[" in shown(report, monkeypatch, FORCE_COLOR="1", TERM="xterm")
    plain = shown(report, monkeypatch, FORCE_COLOR="1", TERM="xterm", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3[1-7]", plain)


def test_what_knows_ascii_only_gets_that(report, monkeypatch):
    text = shown(report, monkeypatch, encoding="ascii")
    assert " us" in text
    assert "+-" in text


def test_markdown_has_all_that_is_needed_to_judge(report):
    text = markdown(report)
    assert "| engine | median | ± | calls/s | time / aoti | differs by |" in text
    assert text.count("| ---") >= 3
    for fact in (report.date, report.machine.cpu, "2 rounds", "Not run: openvino", "1 thread"):
        assert fact in text
    assert text.isprintable() or "\x1b" not in text


@pytest.mark.parametrize(("kind", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
@pytest.mark.parametrize("cases", [1, 4])
def test_a_picture_is_drawn(report, kind, begins, cases):
    pytest.importorskip("matplotlib")
    case, found, bins = report.cases[0], report.of_case(0), report.bins_ms[0]
    wide = replace(
        report,
        cases=(case,) * cases,
        bins_ms=(bins,) * cases,
        measurements=tuple(replace(m, case=n) for n in range(cases) for m in found),
    )
    file = io.BytesIO()
    save_picture(wide, file, kind)
    assert file.getvalue().startswith(begins)
    assert len(file.getvalue()) < 200_000


# -- figures ---------------------------------------------------------------------------------------


def of(*times: int) -> Round:
    kept = np.array(times, np.int64)
    total = sum(times)
    return Round(
        len(times), total / 1e9, total / 1e9, min(times), max(times), total, kept.tobytes()
    )


def test_percentiles_are_of_all_rounds():
    times = list(range(1_000_000, 101_000_000, 1_000_000))
    found = latency([of(*times[::2]), of(*times[1::2])])
    assert (found.min, found.max, found.mean) == (1, 100, 50.5)
    assert found.median == pytest.approx(50.5)
    assert found.p90 == pytest.approx(90, abs=0.2)
    assert found.p99 == pytest.approx(99, abs=0.2)


def test_a_round_that_was_disturbed_does_not_widen_the_spread():
    quiet = [1.0, 1.1, 0.9, 1.0, 1.0, 1.05, 0.95, 1.0, 1.0]
    assert middle([*quiet, 50.0]) == (0.95, 1.1)
    assert spread([*quiet, 50.0]) == pytest.approx(0.075)
    assert spread([1.0]) is None
    assert ratio([2.0, 4.0, 8.0], [1.0, 2.0, 1.0]) == Ratio(2.0, 2.0, 8.0)


def test_results_are_compared_output_by_output():
    ones = np.ones(3, np.float32)
    assert difference([ones], [ones]) == Difference(0.0, None)
    assert difference([ones], [ones, ones]).reason == "1 outputs instead of 2"
    assert difference([ones[:2]], [ones]).largest is None
    assert "output 1" in difference([ones, ones * 2], [ones, ones]).reason


def test_figures_have_three_digits():
    shown = [duration(ms) for ms in (0.0021345, 0.9994, 0.99951, 41.66, 999.4, 1184.6)]
    assert shown == ["2.13 µs", "999 µs", "1.00 ms", "41.7 ms", "999 ms", "1.18 s"]
    assert digits(170099.7) == "170,100"


# -- the command line ------------------------------------------------------------------------------


def test_bench_prints_a_table_and_writes_files(packages, tmp_path, capsys):
    page = tmp_path / "out.md"
    model = str(packages / "mlp.pt2")
    assert run(["bench", model, "--dim", "batch=3", *QUICK, "--markdown", str(page)]) == 0
    out, err = capsys.readouterr()
    assert "batch=3: x 3x10" in out
    assert err == ""
    assert "### batch=3: x 3x10" in page.read_text()


def test_bench_json_takes_given_inputs(packages, tmp_path, capsys, rows):
    np.save(tmp_path / "x.npy", rows)
    arguments = ["-i", str(tmp_path / "x.npy"), "--compare", "eager,onnxruntime", "--json"]
    assert run(["bench", str(packages / "mlp.pt2"), *QUICK, *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cases"][0]["shapes"] == {"x": [3, 10]}
    assert [skipped["label"] for skipped in document["skipped"]] == ["eager", "onnxruntime"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pt2"], "no package at nowhere.pt2"),
        (["{mlp}", "--against", "nowhere.pt2"], "no package at nowhere.pt2"),
        (["{mlp}", "--compare", "tvm"], "unknown engine 'tvm'; known are " + ", ".join(ENGINES)),
        (["{mlp}", "--dim", "bat=1"], "no dynamic size is named 'bat'; the model has batch"),
        (["{mlp}", "--dim", "batch=two"], "--dim must be NAME=N,N,... with whole numbers"),
        (["{mlp}", "--dim", "batch=0,2000"], "size batch must be 1 to 1024, not 0"),
        (["{mlp}", "--shape", "x=1,9"], "input x cannot have the shape 1, 9"),
        (["{mlp}", "--shape", "y=1"], "no input is named 'y'; the model has x"),
        (["{mlp}", "--shape", "x=2,10", "--dim", "batch=2"], "size batch is given twice"),
        (["{mlp}", "--model-name", "other"], "other"),
        (["{mlp}", "--runners", "0"], "runners must be at least 1, not 0"),
        (["{mlp}", "--duration", "0"], "duration must be a number of seconds above 0"),
        (["{mlp}", "--png", "out.gif"], "must end in .png"),
        (
            ["{mlp}", "--markdown", "nowhere/out.md"],
            "the directory of nowhere/out.md does not exist",
        ),
        (["{mlp}", "-i", "nowhere.npy"], "nowhere.npy"),
        (["{mlp}", "--mode", "warp"], "'warp' is not one of"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_call_is_told_in_two_lines_and_code_2(packages, capsys, arguments, message):
    given = [text.format(mlp=packages / "mlp.pt2") for text in arguments]
    assert run(["bench", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) <= 2


def test_a_picture_without_matplotlib_says_what_to_install(packages, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["bench", str(packages / "mlp.pt2"), "--png", "out.png"]) == 2
    assert capsys.readouterr().err == (
        "aoti: a picture needs matplotlib: pip install 'aoti-runtime[bench]'\n"
    )


def test_progress_is_for_terminals(packages):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "aoti", "bench", str(packages / "mlp.pt2"), *QUICK, "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += (chunk := os.read(ours, 4096))
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
        json.loads(process.stdout.read())
    os.close(ours)
    assert process.returncode == 0
    assert b"starting aoti" in said
