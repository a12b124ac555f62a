"""The commands that build the wheels, in a clean clone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.find_spec("torch")
if SPEC is None or SPEC.origin is None:
    pytest.skip("needs an installed torch", allow_module_level=True)
TORCH = Path(SPEC.origin).parent


def run(*command: object, cwd: Path, **env: str) -> str:
    words = [str(word) for word in command]
    env = {**os.environ, **env}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_one_command_builds_what_the_sources_themselves_give(tmp_path):
    """By way of the sdist, and from the source tree at another place: the same bytes."""
    one, other = tmp_path / "a clone", tmp_path / "elsewhere"
    for clone in (one, other):
        run("git", "clone", "--quiet", ROOT, clone, cwd=tmp_path)
    run("tools/build_wheel", "runtime", TORCH, cwd=one)
    (wheel,) = one.glob("dist/*.whl")
    assert len(list(one.glob("dist/*.tar.gz"))) == 1
    assert not list(one.glob("build/wheel.*"))
    assert run("git", "status", "--porcelain", cwd=one) == ""

    python = one / ".venv/wheels/bin/python"
    env = {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "SOURCE_DATE_EPOCH": run("git", "log", "-1", "--format=%ct", cwd=one),
        "AOTI_OPENMP": "1",
        "AOTI_TORCH_ROOTS": run(python, "tools/torch_roots", TORCH, cwd=other),
    }
    run(python, "-m", "build", "--no-isolation", "--wheel", cwd=other, **env)
    (built,) = other.glob("dist/*.whl")
    run(python, "tools/repair_wheel", "-w", other / "repaired", built, cwd=other, **env)
    assert (other / "repaired" / wheel.name).read_bytes() == wheel.read_bytes()
