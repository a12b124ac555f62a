"""Signals that end a command: it removes its files first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from aoti.cli.group import run


@pytest.fixture
def acted_on(number):
    """A signal that the processes of this test do not ignore, although nohup may run the tests."""
    before = signal.signal(number, signal.SIG_DFL)
    yield
    signal.signal(number, before)


@pytest.mark.parametrize("program", ["from aoti.cli.group import main; main()", None])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("acted_on")
def test_a_signal_leaves_no_files(packages, tmp_path, program, number):
    scratch, target = tmp_path / "tmp", tmp_path / "out"
    scratch.mkdir()
    target.mkdir()
    how = ["-m", "aoti"] if program is None else ["-c", program]
    arguments = ["infer", packages / "mlp.pt2", "--lines", "-o", target / "out.jsonl"]
    process = subprocess.Popen(
        [sys.executable, *how, *arguments],
        env={**os.environ, "TMPDIR": str(scratch), "AOTI_CACHE_ENABLED": "0"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not list(target.iterdir()):
        assert process.poll() is None
    assert list(scratch.iterdir()) != []
    for _ in range(2):  # as `timeout` sends it: to the process, and to its group
        process.send_signal(number)
    assert process.communicate() == (None, b"")
    assert process.returncode == 128 + number
    assert [*target.iterdir(), *scratch.iterdir()] == []


def test_a_signal_that_the_caller_handles_stays_as_it_is(capsys):
    for handler in (signal.SIG_IGN, signal.SIG_DFL, lambda *_: None):
        before = signal.signal(signal.SIGHUP, handler)
        try:
            assert run(["--version"]) == 0
            assert signal.getsignal(signal.SIGHUP) is handler
        finally:
            signal.signal(signal.SIGHUP, before)
