"""The workflow files, by their linters and by what they promise."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TOOLS = [p for p in (ROOT / "tools").iterdir() if p.is_file() and p.stat().st_mode & 0o100]


def found(name: str) -> str:
    """A linter on the path, or beside this Python."""
    tool = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return tool or pytest.skip(f"{name} is not installed")


def passes(*command: object) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing():
    passes(found("actionlint"), *WORKFLOWS)


def test_zizmor_finds_nothing():
    passes(found("zizmor"), "--offline", "--no-progress", "--quiet", ROOT / ".github")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_steps_are_one_command(path):
    text = path.read_text()
    for action in re.findall(r"uses: (\S+)", text):
        assert action.startswith("./") or re.search(r"@[0-9a-f]{40}$", action), action
    assert "run: |" not in text  # logic stands in tools/


def test_every_tool_that_a_workflow_runs_is_there():
    named = {name for path in WORKFLOWS for name in re.findall(r"tools/(\w+)", path.read_text())}
    named -= {"constraints"}
    assert named
    assert named <= {path.name for path in TOOLS}


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name)
def test_every_tool_has_help(path):
    needed = {
        "provider_tree": "cyclonedx",
        "recompress_wheel": "deflate",
        "check_wheel": "elftools",
    }
    if path.name in needed:
        pytest.importorskip(needed[path.name])
    python = b"python" in path.read_bytes().splitlines()[0]
    command = [*([sys.executable] if python else []), path, "--help"]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3
    assert f"usage: {'' if python else 'tools/'}{path.name}" in done.stdout.replace(
        "[BACKEND=cpu|cuda|rocm] ", ""
    )
