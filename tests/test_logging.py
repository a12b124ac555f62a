"""The logger: silent by itself, and what it says when it is asked."""

from __future__ import annotations

LOAD = """
import sys, aoti
aoti.load(sys.argv[1]).close()
"""


def test_nothing_is_said_unless_asked_for(packages, run_python):
    assert run_python(LOAD, packages / "mlp.pt2", check=False) == ""
    assert run_python(LOAD, packages / "mlp.pt2", check=False, AOTI_DEBUG="0") == ""


def test_debug_says_what_happens_on_standard_error(packages, run_python):
    lines = run_python(LOAD, packages / "mlp.pt2", check=False, AOTI_DEBUG="1").splitlines()
    said = [line.split(" ", 2)[2] for line in lines]
    assert said[0].startswith("aoti.native INFO: native engine ")
    assert said[1].startswith(f"aoti.cache INFO: extracted {packages}/mlp.pt2 to ")
    assert said[2].startswith(f"aoti INFO: loaded {packages}/mlp.pt2 on cpu in ")
    assert len(said) == 3


def test_an_applications_own_handlers_get_it(packages, run_python):
    program = (
        """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="app %(name)s", level="INFO")
"""
        + LOAD
    )
    out = run_python(program, packages / "mlp.pt2", AOTI_DEBUG="1").split()
    assert out == ["app", "aoti.native", "app", "aoti.cache", "app", "aoti"]
