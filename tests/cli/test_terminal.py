"""The command line on terminals and in pipes: width, colours, what is said and what is not."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys

import click
import numpy as np
import pytest

from aoti.cli.group import cli, run
from aoti.cli.show import Mark, show_json, show_outputs, show_table

COMMAND = [sys.executable, "-c", "from aoti.cli.group import main; main()"]
COLOR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def rows_file(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((1, 10), np.float32))
    return tmp_path / "rows.npy"


@pytest.fixture
def many(tmp_path):
    """A file of 2000 calls of the 10-16-1 network."""
    path = tmp_path / "many.jsonl"
    path.write_text(json.dumps({"data": [[0.5] * 10]}) + "\n")
    path.write_text(path.read_text() * 2000)
    return path


@pytest.fixture
def in_terminal():
    """Run a command whose standard error, or both streams, are a terminal; give what it got."""

    def in_terminal(*arguments, stdout=None, columns=80, **env):
        ours, theirs = pty.openpty()
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env={**clean, "COLUMNS": str(columns), "TERM": "xterm", **env},
        )
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                said += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(ours)
        process.wait()
        return said.decode()

    return in_terminal


def verbs(group=cli, path=()):
    """Every command that runs something, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize("words", [words for words, _ in verbs()], ids=" ".join)
def test_every_verb_has_an_example_and_the_common_options(words, capsys):
    assert run([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Example:\n .*\baoti ", out)
    for option in ("--json", "-q, --quiet", "-v, --verbose", "--color", "-h, --help"):
        assert option in out


def test_a_summary_of_each_verb_fits_its_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert len(commands.split("\n")) > 9
    assert all(len(line) <= 80 for line in commands.split("\n"))


@pytest.mark.parametrize("verb", ["info", "check"])
def test_lines_fit_a_narrow_terminal_and_nothing_is_lost(packages, capsys, monkeypatch, verb):
    def letters(text):
        return sorted(re.sub(r"[\s\d.]", "", text))  # but for times

    package = str(packages / "mlp.pt2")
    assert run([verb, package]) == 0
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.chdir(packages)
    assert run([verb, "mlp.pt2"]) == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 40
    assert letters(narrow) == letters(wide.replace(package, "mlp.pt2"))


def test_values_fit_a_narrow_terminal(packages, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "48")
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 30, dtype=np.float32).reshape(3, 10))
    assert run(["infer", str(packages / "mlp.pt2"), "-i", str(tmp_path / "x.npy")]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 48
    show_outputs({"a": np.arange(6.0).reshape(1, 6), "名": np.ones(())}, "2 outputs")
    assert capsys.readouterr().out.splitlines() == [
        "2 outputs",
        "output  dtype    shape   values",
        "a       float64  1x6     [[0. 1. 2. 3. 4. 5.]]",
        "名      float64  scalar  1.",
    ]


def test_a_pipe_gets_whole_lines_without_colours(packages, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(["check", str(packages / "mlp.pt2")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())
    show_table("t", ("", ""), [("a", "word " * 100), ("b", "c")])
    assert capsys.readouterr().out.splitlines()[1:] == ["a  " + ("word " * 100).strip(), "b  c"]


def test_colours_go_to_terminals_unless_told_otherwise(packages, in_terminal, capsys, monkeypatch):
    arguments = ["check", packages / "mlp.pt2"]
    assert "\x1b[32mok" in in_terminal(*arguments)
    assert not COLOR.search(in_terminal(*arguments, NO_COLOR="1"))
    assert not COLOR.search(in_terminal(*arguments, "--color", "never"))
    assert COLOR.search(in_terminal("--color", "auto", *arguments, NO_COLOR="1"))
    for words, env in ((["--color", "always"], ""), ([], "1")):
        monkeypatch.setenv("FORCE_COLOR", env)
        assert run([*map(str, arguments), *words]) == 0
        assert "\x1b[32mok" in capsys.readouterr().out


def test_tables_line_up_whatever_the_letters(capsys):
    show_table("t", ("name", "x"), [("名前", 1), (Mark("ab", ""), "2")])
    assert capsys.readouterr().out.splitlines() == ["t", "name  x", "名前  1", "ab    2"]


# -- progress ------------------------------------------------------------------------------------


def test_progress_is_shown_on_a_terminal_and_goes_away(packages, in_terminal, many, tmp_path):
    more = (
        tmp_path / "more.jsonl"
    )  # so many that they take longer than the first line takes to come
    more.write_bytes(many.read_bytes() * 20)
    arguments = ["infer", packages / "mlp.pt2", "-i", more, "-o", tmp_path / "out.jsonl"]
    said = in_terminal(*arguments, "--batch", 1)
    assert re.search(r"\d+ inputs \(\d+ per second\)", said)
    assert "\x1b[2K40000 inputs in" in said  # the line was erased before the summary
    assert in_terminal(*arguments, "-q") == ""


def test_progress_does_not_mix_with_results(packages, in_terminal, many, tmp_path):
    arguments = ["infer", packages / "mlp.pt2", "-i", many, "--json"]
    lines = in_terminal(*arguments).splitlines()
    assert [json.loads(line)["line"] for line in lines] == list(range(1, 2001))
    with (tmp_path / "out").open("wb") as file:
        said = in_terminal(*arguments, stdout=file)
    assert (tmp_path / "out").read_bytes().count(b"\n") == 2000
    assert "\x1b[2K" in said
    assert "outputs" not in said


def test_without_a_terminal_there_is_no_progress(packages, many, tmp_path, capsys):
    target = str(tmp_path / "out.jsonl")
    assert run(["infer", str(packages / "mlp.pt2"), "-i", str(many), "-o", target]) == 0
    assert capsys.readouterr().err == ""


# -- how much is said ----------------------------------------------------------------------------


def test_quiet_leaves_results_and_errors(packages, rows_file, tmp_path, capsys):
    package, target = str(packages / "mlp.pt2"), str(tmp_path / "out.npz")
    for words in (
        ["infer", package, "-i", str(rows_file), "-o", target],
        ["check", package],
        ["unpack", package, str(tmp_path / "unpacked")],
        ["cache", "prune", "--max-size", "1T"],
    ):
        assert run(["-q", *words]) == 0
        assert capsys.readouterr() == ("", "")
    assert run(["infer", package, "-i", str(rows_file), "--quiet"]) == 0
    assert "float32" in capsys.readouterr().out
    assert run(["check", str(packages / "custom.pt2"), "-q"]) == 1
    out = capsys.readouterr().out
    assert "aoti_tests::halve" in out
    assert "ok" not in out.split()
    assert run(["-q", "info", "none.pt2"]) == 2
    assert "no package at none.pt2" in capsys.readouterr().err


def test_verbose_tells_what_is_done(packages, rows_file, tmp_path):
    arguments = ["infer", packages / "mlp.pt2", "-i", rows_file, "-o", tmp_path / "out.npz"]
    said = {}
    for flags in ((), ("-v",), ("-vv",), ("-q",)):
        process = subprocess.run(
            [*COMMAND, *map(str, arguments), *flags],
            env={**os.environ, "AOTI_CACHE_DIR": str(tmp_path / f"cache{len(said)}")},
            capture_output=True,
            text=True,
            check=True,
        )
        said[flags] = process.stderr
    assert said[()] == said["-q",] == ""
    assert re.search(r"aoti INFO: loaded .* on cpu in \d+ ms", said["-v",])
    assert len(said["-vv",].splitlines()) >= len(said["-v",].splitlines())


def test_quiet_and_verbose_exclude_each_other(capsys):
    assert run(["-q", "models", "-v"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_a_warning_is_one_line(packages, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4), np.float32))
    arguments = ["infer", packages / "stock_scalars.pt2", "-i", tmp_path / "x.npy"]
    command = [*COMMAND, *map(str, arguments)]
    program = ["import warnings; from aoti.cli.group import cli, main", "import aoti"]
    program += ["aoti.AOTIModel.infer = lambda *_: warnings.warn('odd') or 1 / 0"]
    del command[1:3]
    for flags, lines in (([], ["aoti: warning: odd"]), (["-q"], [])):
        process = subprocess.run(
            [command[0], "-c", "\n".join([*program, "main()"]), *command[1:], *flags],
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.stderr.splitlines()[: len(lines)] == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["foo"], "No such command 'foo'"),
        (["info"], "Missing argument 'PT2'"),
        (["info", "a.pt2", "b.pt2"], "unexpected extra argument (b.pt2)"),
        (["infer", "--bat", "3"], "Did you mean '--batch'?"),
        (["infer", "a.pt2", "-m", "b.pt2"], "a.pt2 or b.pt2? name one package"),
        (["infer", "a.pt2", "--invalid", "no"], "'no' is not one of 'stop', 'skip'"),
        (["export"], "Missing argument '[NAME=]SOURCE...'"),
        (["export", "m.py:make"], "Missing option '-o' / '--output'"),
        (["export", "m.py:make", "-o", "m"], "must end in .pt2"),
        (["verify", "none.pt2"], "no package at none.pt2"),
        (["unpack", "none.pt2", "d"], "no package at none.pt2"),
        (["cache", "prune", "--max-size", "x"], "such as 500M or 10G"),
        (["models", "--color", "no"], "'no' is not one of"),
    ],
)
def test_a_wrong_call_is_two_lines_at_most(capsys, arguments, message):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    lines = err.splitlines()
    assert len(lines) <= 2
    assert all(line.startswith("aoti: ") for line in lines)
    if len(lines) == 2:
        assert re.fullmatch(r"aoti: see aoti.* --help", lines[1])


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_failed_export_is_two_lines_unless_all_is_wanted(tmp_path, debug):
    (tmp_path / "branch.py").write_text(
        "import torch\n"
        "class Branch(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n"
        "def make(): return Branch(), torch.ones(3)\n"
    )
    process = subprocess.run(
        [*COMMAND, "export", "branch.py:make", "-o", "m.pt2"],
        cwd=tmp_path,
        env={**os.environ, "AOTI_DEBUG": debug},
        capture_output=True,
        text=True,
        check=False,
    )
    steps = re.compile(r" +\d+\.\d s  (importing torch|tracing, .*)")
    said = [line for line in process.stderr.splitlines() if not steps.fullmatch(line)]
    assert (process.returncode, process.stdout) == (1, "")
    assert (len(said) == 2) == (debug == "0")
    assert "branch.py:4, in forward" in process.stderr
    assert "torch.where" in process.stderr


def test_json_has_null_for_numbers_that_it_lacks(capsys):
    show_json({"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": "nan"})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [1.5, None, [None, {"b": None}]],
        "c": "nan",
    }
