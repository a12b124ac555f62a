"""Fixtures for all tests: packages, exported once, and fresh processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import aoti

ROOT = Path(__file__).parents[1]


def _export(script: Path, target: Path, inputs: list[Path]) -> Path:
    """Run an export script unless it ran before with the same inputs; give its directory."""
    content = b"".join(path.read_bytes() for path in inputs) + version("torch").encode()
    directory = target / hashlib.sha256(content).hexdigest()[:16]
    if not (directory / "done").exists():
        directory.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-W", "ignore", str(script), str(directory)], check=True, env=env
        )
        (directory / "done").touch()
    return directory


@pytest.fixture(scope="session")
def packages() -> Path:
    """The directory of the packages that tests/packages.py exports."""
    script = ROOT / "tests/packages.py"
    inputs = [script, ROOT / "aoti/exporting/export.py"]
    return _export(script, ROOT / "build/packages", inputs)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The package of MiniLM-L6, the one that tools/demo exports too."""
    path = ROOT / "build/models/minilm.pt2"
    sources = [ROOT / "tools/minilm.py", ROOT / "aoti/exporting/export.py"]
    if not path.exists() or any(s.stat().st_mtime > path.stat().st_mtime for s in sources):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore", str(sources[0]), str(path)]
        subprocess.run(command, check=True, env=env)
    return path


@pytest.fixture(scope="session", autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory):
    """Where the tests extract packages to: never the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("cache")
        patch.setenv("AOTI_CACHE_DIR", str(directory))
        patch.delenv("AOTI_CACHE_SIZE", raising=False)
        yield directory


@pytest.fixture
def mlp(packages: Path):
    """The loaded 10-16-1 network."""
    with aoti.load(packages / "mlp.pt2") as model:
        yield model


@pytest.fixture
def rows() -> np.ndarray:
    """Input for the network: float32 of shape (3, 10)."""
    return np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)


@pytest.fixture
def run_python(tmp_path: Path):
    """Run a program in a fresh Python, with warnings as errors; give its standard output.

    Its temporary directory must be empty at the end. Its cache is the test's own.
    """

    def run(program: str, *arguments: object, check: bool = True, **env: str) -> str:
        scratch = tmp_path / "tmp"
        scratch.mkdir(exist_ok=True)
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
            # Safe path: no directory that the tests happen to run in goes before PYTHONPATH.
            env={
                **os.environ,
                "TMPDIR": str(scratch),
                "AOTI_CACHE_DIR": str(tmp_path / "cache"),
                "PYTHONSAFEPATH": "1",
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert process.returncode == 0, process.stderr
            assert list(scratch.iterdir()) == []
        return process.stdout if check else process.stdout + process.stderr

    return run
