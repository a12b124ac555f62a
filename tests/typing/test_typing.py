"""Type checkers accept a user's program, and see in it the types that users rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "program.py"
ROOT = PROGRAM.parents[2]
SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "{cache}"],
        [SCRIPTS / "basedpyright", "--level", "error", "--pythonpath", sys.executable],
    ],
    ids=["mypy", "pyright"],
)
def test_a_users_program_type_checks(command, tmp_path):
    arguments = [str(part).format(cache=tmp_path) for part in command]
    process = subprocess.run(
        [*arguments, str(PROGRAM)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
