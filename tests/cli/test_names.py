"""Names of files that a terminal would obey, or that are not UTF-8: every verb, in a pipe."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from aoti import _logging
from aoti.cli.progress import progress
from aoti.cli.show import Mark, show_table

COMMAND = [sys.executable, "-c", "from aoti.cli.group import main; main()"]
NAME = "a\x1b[2J\u202e\udcff"  # clears the screen, turns letters around, is not UTF-8


@pytest.fixture
def place(packages, tmp_path):
    """A directory of that name, with a package, inputs and a directory of models of that name."""
    place = tmp_path / NAME
    model = place / "models" / "named"
    model.mkdir(parents=True)
    shutil.copy(packages / "mlp.pt2", place / f"{NAME}.pt2")
    shutil.copy(packages / "mlp.pt2", place / "models" / f"{NAME}.pt2")
    (model / "model.toml").write_text('name = "\\u001b[2J"')
    np.save(place / f"{NAME}.npy", np.zeros((1, 10), np.float32))
    rows = [json.dumps({"data": [[0] * width]}) for width in (10, 9)]
    (place / f"{NAME}.jsonl").write_text("\n".join(rows))
    return place


VERBS = {
    "infer {name}.pt2 -i {name}.npy": 0,
    "infer {name}.pt2 -i {name}.jsonl -o {name}.out.jsonl --invalid skip": 0,
    "infer {name}.pt2 -i {name}.jsonl -o {name}.out.jsonl": 2,
    "infer {name}.pt2 -i none{name}.npy": 2,
    "infer {name} -i {name}.npy -o {name}.npz": 0,
    "info {name}.pt2": 0,
    "check {name}.pt2": 0,
    "check {name}.npy": 1,
    "export {name}.py:make -o {name}.pt2": 2,
    "verify {name}.pt2": 1,
    "bench {name}.pt2 --duration 0.01 --rounds 1 --warmup 0 --markdown {name}.md": 0,
    "unpack {name}.pt2 {name}.unpacked": 0,
    "models": 0,
    "cache list": 0,
    "infer {name}.pt2 -i {name}.npy; cache list; cache prune": 0,
    "test-device": 0,
    "test-device {name}": 2,
    "{name}": 2,
}


@pytest.mark.parametrize(("words", "code"), VERBS.items(), ids=VERBS)
def test_nothing_reaches_the_terminal_as_it_is(place, tmp_path, words, code):
    cache = tmp_path / NAME.removesuffix("\udcff")
    env = {
        **os.environ,
        "AOTI_CACHE_DIR": str(cache),
        "AOTI_MODELS_DIR": str(place / "models"),
    }

    def call(line):
        return subprocess.run(
            [*COMMAND, *(word.format(name=NAME) for word in line.split(" ")), "-v"],
            cwd=place, env=env, capture_output=True, check=False,
        )  # fmt: skip

    for line in words.split("; "):
        done = call(line)
        said = (done.stdout + done.stderr).decode()
        assert "Traceback" not in said
        assert done.returncode == code, said
        assert all(line.isprintable() for line in said.split("\n"))


def test_a_message_of_the_log_is_one_line(capsys, monkeypatch):
    logger = logging.getLogger("aoti")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logger, "handlers", logger.handlers[:1])
    monkeypatch.setattr(logger, "level", logger.level)
    _logging.show("info")
    try:
        raise ValueError(NAME)
    except ValueError:
        logger.exception("loaded %s\nx", NAME)
    said = capsys.readouterr().err.splitlines()
    assert r"loaded a\x1b[2J\u202e\udcff\nx" in said[0]
    assert said[1].startswith("Traceback")
    assert said[-1] == r"ValueError: a\x1b[2J\u202e\udcff"
    assert all(line.isprintable() for line in said)


def test_a_step_and_a_colored_cell_are_printable(capsys):
    with progress(in_lines=True) as step:
        step(NAME)
    show_table("t", ("",), [(Mark(NAME, "red"),)])
    out, err = capsys.readouterr()
    assert r"a\x1b[2J\u202e\udcff" in err
    assert r"a\x1b[2J\u202e\udcff" in out
    assert "\x1b" not in out + err
