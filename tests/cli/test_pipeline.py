"""Many calls through ``aoti infer``: order, joined calls, invalid inputs, streams."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import aoti
from aoti.arrays.batching import Batches, Rows
from aoti.cli.group import run
from aoti.cli.io.input_stream import Request
from aoti.cli.io.pipeline import Stream

COMMAND = [sys.executable, "-W", "error", "-c", "from aoti.cli.group import main; main()", "infer"]


def line(values):
    return json.dumps({"data": [list(map(float, values))]}) + "\n"


@pytest.fixture
def write(tmp_path):
    """Write a file of lines; give its path."""

    def write(lines, name="in.jsonl"):
        (tmp_path / name).write_text("".join(lines))
        return str(tmp_path / name)

    return write


@pytest.fixture
def expected(packages):
    """What the 10-16-1 network gives for rows."""

    def expected(rows):
        with aoti.load(packages / "mlp.pt2") as model:
            return model(np.asarray(rows, np.float32))

    return expected


def read(text):
    return [json.loads(line) for line in text.splitlines()]


def test_ten_thousand_lines(batch_packages, tmp_path, run_python):
    """In order, right, in few runs, in memory that does not grow, but for one that is invalid."""
    model, source, target = (
        batch_packages / "wide.pt2",
        tmp_path / "in.jsonl",
        tmp_path / "out.jsonl",
    )
    rows = np.random.default_rng(0).standard_normal((10_000, 4), dtype=np.float32)
    lines = [line(row)[:-1] + " " * 4000 + "\n" for row in rows]  # 40 MB in all
    lines[5000] = line([1] * 5)
    program = """
import sys
from aoti.cli.group import run
assert run(["infer", *sys.argv[1:], "--num-runners", "2", "--invalid", "skip"]) == 0
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    peaks = []
    for count in (1000, 10_000):
        source.write_text("".join(lines[:count]))
        summary, peak = run_python(program, model, "-i", source, "-o", target).splitlines()
        peaks.append(int(peak))  # KiB
    match = re.match(r"9999 inputs, 1 skipped in .* per second\), (\d+) runs on cpu", summary)
    assert int(match[1]) <= 10_000 / 32 + 5  # two alone, which show that calls may be joined
    assert peaks[1] - peaks[0] < 16 << 10
    results = read(target.read_text())
    assert [result["line"] for result in results] == [n + 1 for n in range(10_000) if n != 5000]
    got = [result["outputs"]["output"]["data"] for result in results]
    with aoti.load(model) as wide:
        alone = [wide(rows[n : n + 1])[0] for n in range(0, 5000, 100)]
    assert np.allclose(got[:5000:100], alone, atol=1e-4)


def test_what_mixes_rows_is_noticed_and_run_one_at_a_time(batch_packages, write, capsys):
    rows = np.random.default_rng(0).standard_normal((70, 4))
    model = str(batch_packages / "mixing.pt2")
    assert run(["infer", "-m", model, "-i", write(map(line, rows)), "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(read(out)) == 70
    assert all(result["outputs"]["output"]["data"] == [0.0] * 4 for result in read(out))
    assert err.count("\n") == 1
    assert "depend on what else is in a batch" in err


BAD = [
    ("not json\n", "Expecting value"),
    ("[]\n", "contains 0 arrays, the model takes 1"),
    (line([1] * 9), "dimension 1 must be 10, not 9"),
    ('{"data": [[1, "x"]]}\n', "the data contains a value that is not a number"),
    ("7\n", 'expected {"data"'),
    ("[" * 100_000 + "\n", "recursion"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_an_invalid_line_stops_or_is_skipped_as_asked(
    packages, write, tmp_path, capsys, expected, bad, message
):
    good = [line([n] * 10) for n in range(4)]
    source = write([good[0], "\n", good[1], bad, good[2], good[3].rstrip()])
    arguments = ["infer", "-m", str(packages / "mlp.pt2"), "-i", source, "--json"]
    values = expected([[n] * 10 for n in range(4)]).ravel()

    assert run([*arguments, "--invalid", "skip"]) == 0
    out, err = capsys.readouterr()
    assert [result["line"] for result in read(out)] == [1, 3, 5, 6]
    got = [result["outputs"]["output"]["data"][0] for result in read(out)]
    assert got == pytest.approx(values, abs=1e-6)
    assert err.startswith("aoti: line 4: ")
    assert message in err
    assert err.count("\n") == 1

    target = tmp_path / "out.jsonl"
    assert run([*arguments, "-o", str(target)]) == 2
    out, err = capsys.readouterr()
    assert [result["line"] for result in read(out)] == [1, 3]
    assert err.startswith("aoti: line 4: ")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_one_of_a_joined_call_that_is_invalid_is_found(packages, write, capsys):
    indices = [0, 1, 99, 2]
    source = write(json.dumps({"data": [n]}) + "\n" for n in indices)
    arguments = ["infer", "-m", str(packages / "lookup.pt2"), "-i", source, "--json"]
    assert run([*arguments, "--invalid", "skip"]) == 0
    out, err = capsys.readouterr()
    assert [result["line"] for result in read(out)] == [1, 2, 4]
    assert err.startswith("aoti: line 3: ")
    assert "99" in err


def test_a_line_is_answered_before_the_next_one_comes(packages, expected):
    values = expected([[n] * 10 for n in range(3)])
    with subprocess.Popen(
        [*COMMAND, "-m", packages / "mlp.pt2", "--lines", "-o", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for n in range(3):
            process.stdin.write(line([n] * 10))
            process.stdin.flush()
            result = json.loads(process.stdout.readline())
            assert result["line"] == n + 1
            assert result["outputs"]["output"]["data"] == pytest.approx(values[n], abs=1e-6)
        process.stdin.close()
        assert process.wait() == 0


def test_the_files_of_a_directory_are_calls(packages, tmp_path, capsys, expected):
    directory = tmp_path / "in"
    directory.mkdir()
    rows = np.arange(30, dtype=np.float32).reshape(3, 1, 10) / 30
    np.save(directory / "a.npy", rows[0])
    np.savez(directory / "c.npz", x=rows[2])
    (directory / "b.json").write_text(json.dumps({"data": rows[1].tolist()}))
    (directory / "README").touch()
    arguments = ["infer", "-m", str(packages / "mlp.pt2"), "-i", str(directory)]
    assert run([*arguments, "-o", str(tmp_path / "out.npz"), "--json"]) == 0
    results = read(capsys.readouterr().out)
    assert [result["file"] for result in results] == ["a.npy", "b.json", "c.npz"]
    assert np.allclose(np.load(tmp_path / "out.npz")["output"], expected(rows[:, 0]), atol=1e-6)


def test_safetensors_and_inputs_by_name(packages, tmp_path, capsys):
    save = pytest.importorskip("safetensors.numpy").save_file
    load = pytest.importorskip("safetensors.numpy").load_file
    x, y = np.ones((2, 3), np.float32), np.ones((2, 5), np.float32)
    np.save(tmp_path / "x.npy", x)
    save({"y": y}, tmp_path / "y.safetensors")
    save({"x": x, "y": y}, tmp_path / "both.safetensors")
    target = tmp_path / "out.safetensors"
    arguments = ["infer", "-m", str(packages / "shared.pt2"), "-o", str(target)]
    by_name = ["-i", f"y={tmp_path}/y.safetensors", "-i", f"x={tmp_path}/x.npy"]
    for sources in (by_name, ["-i", f"{tmp_path}/both.safetensors"]):
        assert run([*arguments, *sources]) == 0
        assert np.array_equal(load(target)["output"], np.full((2, 3), 5.0))
        target.unlink()
    capsys.readouterr()
    for sources, message in (
        (by_name[:2], "contains y; the model takes x, y"),
        ([*by_name[:2], *by_name[:2]], "y was given before"),
        ([*by_name[:2], "-i", "x.npy"], "several inputs must be NAME=FILE"),
        (
            ["-i", f"x={tmp_path}/both.safetensors", *by_name[:2]],
            "contains 2 arrays, but x is one array",
        ),
        (["-i", f"{tmp_path}/x.npy"], "contains 1 arrays, the model takes 2"),
    ):
        assert run([*arguments, *sources]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lines", "-i", "x.json"], "--lines is for standard input"),
        (["-i", "a.jsonl", "-i", "b.jsonl"], "one file or directory"),
        (["-i", "a.jsonl", "-o", "x.json"], "of many calls must end in .jsonl"),
        (["-i", "none.jsonl"], "cannot read none.jsonl: No such file"),
        (["-i", "none.jsonl", "--batch", "2000"], "the model accepts at most 1024 rows"),
        (["-i", "{empty}"], "does not contain files of arrays"),
    ],
)
def test_wrong_calls_say_what_to_do(packages, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    arguments = [argument.format(empty=tmp_path / "empty") for argument in arguments]
    assert run(["infer", "-m", str(packages / "mlp.pt2"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_joined_is_said_where_it_was_asked_for(packages, write, capsys):
    arguments = ["infer", "-m", str(packages / "derived.pt2"), "-i", write([]), "--batch"]
    assert run([*arguments, "4"]) == 2
    assert "cannot be joined" in capsys.readouterr().err
    assert run([*arguments, "1"]) == 0


def test_shapes_that_do_not_join_ask_for_json_lines(packages, write, tmp_path, capsys):
    target = tmp_path / "out.npz"
    source = write([json.dumps([{"data": [[0, 0]] * 2}, {"data": [[0, 0]] * 5}]) + "\n"])
    arguments = ["infer", "-m", str(packages / "derived.pt2"), "-i", source, "-o", str(target)]
    assert run(arguments) == 2
    assert "line 1: output output of shape () cannot be joined" in capsys.readouterr().err
    assert not target.exists()


class Slow:
    """A model that doubles, and counts who runs."""

    num_runners = 2

    def run(self, inputs):
        return [inputs[0] * 2]


def test_only_as_much_is_held_as_runs():
    taken = 0

    def requests():
        nonlocal taken
        for n in range(10_000):
            taken = n + 1
            yield Request({"line": n}, [np.full((1, 2), n)])

    stream = Stream(Slow(), Batches("n", (Rows(),), (Rows(),), 1), 8)
    for given, (request, outcome) in enumerate(stream.results(requests())):
        assert request.label == {"line": given}
        assert outcome[0].tolist() == [[2 * given] * 2]
        assert taken - given <= 8 * (Slow.num_runners + 2)
    assert stream.runs == 10_000 / 8 + 2
    assert stream.warning is None
