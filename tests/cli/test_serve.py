"""`aoti serve` before it serves. tests/serving/test_kserve.py has what it serves."""

from __future__ import annotations

import sys

import pytest

from aoti.cli.group import run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which package? name it, as in aoti serve model.pt2"),
        (["a.pt2", "b/a.pt2"], "give each model its own name, as in NAME=PT2"),
        (["=a.pt2"], "give each model its own name"),
        (["a.pt2", "--batch", "1"], "max_size must be a number of rows from 2"),
    ],
)
def test_wrong_calls_say_what_to_do(capsys, monkeypatch, arguments, message):
    monkeypatch.delenv("AOTI_MODEL", raising=False)
    assert run(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_server_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kserve", None)
    for name in ("kserve", "kserve_server"):
        monkeypatch.delitem(sys.modules, f"aoti.serving.{name}", raising=False)
    assert run(["serve", "a.pt2"]) == 2
    assert "aoti serve needs the package kserve: pip install" in capsys.readouterr().err
