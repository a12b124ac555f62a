"""The commands that build the wheels, in a clean clone."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.find_spec("torch")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build the thin wheel in a clone of this repository, for the torch of the tests."""
    if SPEC is None or SPEC.origin is None:
        pytest.skip("needs an installed torch")
    torch = Path(SPEC.origin).parent

    def build(*command: object) -> Path:
        clone = tmp_path_factory.mktemp("clone") / "a clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        words = [clone / "tools/build_wheel", *command, torch]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list((clone / "build").glob("wheel.*"))
        status = ["git", "-C", clone, "status", "--porcelain"]
        assert subprocess.run(status, capture_output=True, check=True).stdout == b""
        return clone / "dist"

    return build


def test_two_clones_give_the_same_wheel(build):
    one, other = build("runtime"), build("runtime")
    names = {path.name for path in one.iterdir()}
    assert {path.name for path in other.iterdir()} == names
    (wheel,) = (name for name in names if name.endswith(".whl"))
    assert (one / wheel).read_bytes() == (other / wheel).read_bytes()
    assert (one / wheel).stat().st_size < 1 << 20  # with a single core
