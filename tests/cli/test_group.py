"""The command line: what it prints, how it fails, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import aoti
from aoti.cli.group import run
from aoti.cli.show import show_table

ROW = {"data": list(range(10)), "shape": [1, 10]}


@pytest.fixture
def aoti_command():
    """Run the console script; give exit code, standard output, standard error."""

    def command(*arguments, stdin=""):
        script = [sys.executable, "-W", "error", "-c", "from aoti.cli.group import main; main()"]
        process = subprocess.run(
            [*script, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        return process.returncode, process.stdout, process.stderr

    return command


@pytest.fixture
def expected(mlp):
    return float(mlp(np.arange(10, dtype=np.float32)[None])[0, 0])


def test_infer_reads_standard_input_and_prints_a_table(aoti_command, packages, expected):
    code, out, err = aoti_command(
        "infer", "-m", packages / "mlp.pt2", "-i", "-", stdin=json.dumps(ROW)
    )
    assert (code, err) == (0, "")
    assert f"{expected:.5f}".rstrip("0") in out
    assert "ms on cpu" in out


def test_infer_json_holds_everything(packages, tmp_path, capsys, expected):
    source = tmp_path / "in.json"
    source.write_text(json.dumps([{**ROW, "dtype": "float32"}]))
    assert run(["infer", "-m", str(packages / "mlp.pt2"), "-i", str(source), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["device"] == "cpu"
    assert document["latency_ms"] > 0
    assert document["memory_bytes"] is None
    output = document["outputs"]["output"]
    assert output["shape"] == [1, 1]
    assert output["dtype"] == "float32"
    assert output["data"] == pytest.approx([expected])


@pytest.mark.parametrize("kind", [".npy", ".npz", ".json"])
def test_infer_writes_what_it_can_read(packages, tmp_path, capsys, expected, kind):
    source, target = tmp_path / "in.npy", tmp_path / f"out{kind}"
    np.save(source, np.arange(10, dtype=np.float32)[None])
    model = str(packages / "mlp.pt2")
    assert run(["infer", "-m", model, "-i", str(source), "-o", str(target)]) == 0
    if kind == ".json":
        value = json.loads(target.read_text())["output"]["data"][0]
    elif kind == ".npz":
        value = np.load(target)["output"][0, 0]
    else:
        value = np.load(target)[0, 0]
    assert value == pytest.approx(expected)


def test_infer_takes_several_inputs_by_name_and_by_position(packages, tmp_path, capsys):
    with aoti.load(packages / "shared.pt2") as model:
        names = [spec.name for spec in model.inputs]
    x, y = np.ones((2, 3), np.float32), np.ones((2, 5), np.float32)
    by_name, by_position = tmp_path / "name.npz", tmp_path / "position.npz"
    np.savez(by_name, **dict(zip(reversed(names), (y, x), strict=True)))
    np.savez(by_position, x, y)
    in_json = tmp_path / "in.json"
    forms = {
        name: {"data": a.ravel().tolist(), "shape": a.shape}
        for name, a in zip(names, (x, y), strict=True)
    }
    in_json.write_text(json.dumps(forms))
    for source in (by_name, by_position, in_json):
        arguments = ["infer", "-m", str(packages / "shared.pt2"), "-i", str(source), "--json"]
        assert run(arguments) == 0
        output = json.loads(capsys.readouterr().out)["outputs"]["output"]
        assert output == {"data": [5.0] * 6, "shape": [2, 3], "dtype": "float32"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"data": [1, 2, 3], "shape": [1, 10]}, "3 elements of data, but shape [1, 10] has 10"),
        ({"data": [1] * 10, "shape": [1, 10], "dtype": "int64"}, "expected float32"),
        ({"data": [1] * 10, "shape": [1, 10], "dtype": "float99"}, "float99"),
        ({"data": [1] * 9, "shape": [1, 9]}, "dimension 1 must be 10, not 9"),
        ({"date": []}, "contains date; the model takes x"),
        ([ROW, ROW], "contains 2 arrays, the model takes 1"),
        ("text", 'expected {"data"'),
    ],
)
def test_a_wrong_input_is_one_line_and_code_2(packages, tmp_path, capsys, document, message):
    source = tmp_path / "in.json"
    source.write_text(json.dumps(document))
    assert run(["infer", "-m", str(packages / "mlp.pt2"), "-i", str(source)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["infer", "-m", "none.pt2", "-i", "-"], 2, "no package at none.pt2"),
        (["infer", "-m", "{mlp}", "-i", "none.npy"], 2, "cannot read none.npy"),
        (["infer", "-m", "{mlp}", "-i", "{mlp}"], 2, "cannot read"),
        (["infer", "-m", "{mlp}", "-i", "-", "-o", "x.txt"], 2, "must end in"),
        (["infer", "-m", "{mlp}", "--model-name", "x", "-i", "-"], 2, "it holds 'model'"),
        (["infer", "-m", "{mlp}", "--device", "cuda", "-i", "-"], 1, "compiled for cpu"),
        (["infer"], 2, "which package? name it, as in aoti infer model.pt2"),
        (["info", "none.pt2"], 2, "no package"),
        (["info", "{program}"], 1, "torch.export.save"),
        (["test-device", "cuda:0"], 1, "cannot use cuda:0"),
        (["test-device", "gpu"], 2, "is not a device"),
        (["infer", "-m", "{mlp}", "-i", "-", "--device", "cpu:3"], 2, "is not a device"),
        (["infer", "-m", "{mlp}"], 2, "the model takes inputs"),
        (["infer", "-m", "{tree}", "-i", "-", "-o", "x.npy"], 2, "several outputs"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors_say_what_to_do(packages, capsys, arguments, code, message):
    paths = {name: packages / f"{name}.pt2" for name in ("mlp", "program", "tree")}
    assert run([argument.format(**paths) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err + out


def test_a_damaged_input_file_is_one_line_and_code_2(packages, tmp_path, capsys):
    source = tmp_path / "in.npy"
    source.touch()
    assert run(["infer", "-m", str(packages / "mlp.pt2"), "-i", str(source)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"aoti: cannot read {source}: ")
    assert err.count("\n") == 1


def test_metadata_cannot_act_on_the_terminal(capsys):
    show_table("t\x1b[2J", ("", ""), [("k\u202e", "a\x1b]0;title\x07b\nc")])
    title, row = capsys.readouterr().out.splitlines()
    assert title == r"t\x1b[2J"
    assert row == r"k\u202e  a\x1b]0;title\x07b\nc"


def test_an_error_line_cannot_act_on_the_terminal(capsys):
    assert run(["info", "a\x1b[2J\nb.pt2"]) == 2
    assert capsys.readouterr().err == "aoti: no package at a\\x1b[2J\\nb.pt2\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("info {mlp} > /dev/full", 1, "No space left on device"),
        ("infer -m {mlp} -i {rows} > /dev/full", 1, "No space left on device"),
        ("infer -m {mlp} -i {rows} --json > /dev/full", 1, "No space left on device"),
        ("--version > /dev/full", 1, "No space left on device"),
        ("infer -m {mlp} -i {rows} >&-", 1, "standard output is closed"),
        ("infer -m {mlp} -i - <&-", 2, "standard input is closed"),
        ("info none.pt2 2>&-", 2, None),
        ("info none.pt2 2> /dev/full", 2, None),
        ("info {mlp} <&- >&- 2>&-", 1, None),
        ("info {mlp} 2>&-", 0, None),
    ],
)
def test_no_stream_makes_a_traceback(packages, tmp_path, arguments, code, message):
    rows = tmp_path / "rows.npy"
    np.save(rows, np.zeros((1, 10), np.float32))
    program = f"{sys.executable} -W error -c 'from aoti.cli.group import main; main()' "
    process = subprocess.run(
        program + arguments.format(mlp=packages / "mlp.pt2", rows=rows),
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == code
    assert process.stderr.count("\n") == (1 if message else 0)
    assert (message or "") in process.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "aoti: No space left on device\n"),
        (OSError(13, "Permission denied", "/x"), "aoti: Permission denied: /x\n"),
        (MemoryError(), "aoti: MemoryError\n"),
    ],
)
def test_a_machine_that_fails_is_code_1(packages, monkeypatch, capsys, error, line):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("aoti.loading.extract", fail)
    assert run(["infer", "-m", str(packages / "mlp.pt2"), "-i", "-"]) == 1
    assert capsys.readouterr().err == line


def test_a_model_without_inputs_needs_no_file(packages, monkeypatch, capsys, mlp):
    class NoInputs:
        inputs, outputs, device = (), (), mlp.device

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def infer(self, inputs):
            assert inputs == []
            return aoti.InferenceResult([np.ones(1)], 1.0, None)

    monkeypatch.setattr(aoti, "load", lambda *_, **__: NoInputs())
    assert run(["infer", "-m", "x.pt2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["output.0"]["data"] == [1.0]


def test_a_failing_model_is_code_1(packages, tmp_path, capfd):
    source = tmp_path / "in.npy"
    np.save(source, np.array([99, 99]))
    assert run(["infer", "-m", str(packages / "stock_lookup.pt2"), "-i", str(source)]) == 1
    assert "aoti: index out of bounds" in capfd.readouterr().err


def test_info_shows_a_package_without_loading_it(packages, capsys):
    assert run(["info", str(packages / "tree.pt2")]) == 0
    out = capsys.readouterr().out
    for word in ("device", "cpu", "scale", "mask", "bool", "3 x 4", "float32"):
        assert word in out
    assert run(["info", str(packages / "mlp.pt2"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (model,) = document["models"]
    assert model["device"] == "cpu"
    assert model["metadata"] == {"author": "the tests"}
    assert model["inputs"][0]["shape"][1] == 10
    assert len(document["sha256"]) == 64


def test_info_needs_no_libtorch(packages, run_python):
    program = """
import sys
from aoti.cli.group import run
sys.exit(run(["info", sys.argv[1], "--json"]) or "aoti.engine._libtorch._libtorch" in sys.modules)
"""
    assert json.loads(run_python(program, packages / "mlp.pt2", LIBTORCH="/nowhere"))


def test_test_device_lists_and_tests(capsys):
    assert run(["test-device", "--json"]) == 0
    (cpu,) = json.loads(capsys.readouterr().out)
    assert cpu["device"] == "cpu"
    assert cpu["cores"] >= 1
    assert run(["test-device", "cpu"]) == 0
    assert "computed correctly" in capsys.readouterr().out


def test_no_libtorch_is_one_line_that_says_what_to_do(packages, run_python):
    program = """
import sys
from aoti.cli.group import run
sys.exit(run(["infer", "-m", sys.argv[1], "-i", "-"]))
"""
    env = {"LIBTORCH": "/nowhere", "AOTI_ENGINE": "libtorch"}
    said = run_python(program, packages / "mlp.pt2", check=False, **env)
    assert said.count("\n") == 1
    assert said.startswith("aoti: LIBTORCH=/nowhere holds no lib/libtorch_cpu.so")


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert aoti.__version__ in capsys.readouterr().out
    for verb in ("infer", "info", "test-device"):
        assert run([verb, "--help"]) == 0
        assert "Example:" in capsys.readouterr().out


# -- the end of the process ----------------------------------------------------------------------


def test_output_arrives_whole_in_a_slow_pipe(packages, tmp_path):
    source = tmp_path / "in.npy"
    np.save(source, np.zeros((1024, 10), np.float32))
    program = "from aoti.cli.group import main; main()"
    arguments = ["infer", "-m", packages / "mlp.pt2", "-i", source, "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE
    )
    time.sleep(1)
    with process.stdout as stdout:
        document = json.loads(stdout.read())
    assert process.wait() == 0
    assert len(document["outputs"]["output"]["data"]) == 1024


def test_a_closed_pipe_is_no_traceback(packages):
    program = "from aoti.cli.group import main; main()"
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-c", program, "info", str(packages / "mlp.pt2")],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert process.stderr == b""
    assert process.returncode == 1


def test_nothing_is_left_in_the_temporary_directory(packages, tmp_path):
    program = "from aoti.cli.group import main; main()"
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    arguments = ["infer", "-m", str(packages / "mlp.pt2"), "-i", "-"]
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=json.dumps(ROW).encode(),
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert list(scratch.iterdir()) == []


def test_only_the_console_script_ends_the_process(packages, capsys):
    assert run(["info", str(packages / "mlp.pt2")]) == 0  # and here we are still
