"""Fixtures for the tests of built wheels: a bare machine, and environments beside a torch.

The wheels are those in dist/ (tools/build_wheel), or in the directory that AOTI_WHEELS names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aoti

ROOT = Path(__file__).parents[2]
WHEELS = Path(os.environ.get("AOTI_WHEELS", ROOT / "dist"))
SUITE = "bookworm"
BARE = [
    "python3",
    "python3-pip",
    "python3-venv",
]  # to install with
PROGRAM = """
import json, sys
import numpy as np
import aoti

inputs = dict(np.load(sys.argv[2]))
with aoti.load(sys.argv[1], engine=sys.argv[3]) as model:
    out, engine = model(**inputs), model.engine
out = out["embedding"] if isinstance(out, dict) else out
libtorch = aoti.build_info()["libtorch"] or {}
print(json.dumps({"out": out.tolist(), "aoti": aoti.__file__, "engine": engine, **libtorch}))
"""


def wheel(name: str) -> Path:
    """The built wheel of a distribution, the newest one."""
    found = sorted(WHEELS.glob(f"{name}-*.whl"), key=lambda path: path.stat().st_mtime)
    if not found:
        kind = "runtime" if name == "aoti_runtime" else "provider"
        pytest.skip(f"no {name} in {WHEELS}: run tools/build_wheel {kind}")
    return found[-1]


def output(command: Sequence[object], *, check: bool, **options: Any) -> str:
    """What a command printed, with its errors if it may fail."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout if check else done.stdout + done.stderr


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The wheel of aoti-runtime."""
    return wheel("aoti_runtime")


@pytest.fixture(scope="session")
def provider() -> Path:
    """The wheel of aoti-libtorch-cpu."""
    return wheel("aoti_libtorch_cpu")


@pytest.fixture(scope="session")
def models(packages, minilm, tmp_path_factory) -> Path:
    """A directory with two models: for each a package, inputs, and the outputs of this process."""
    directory = tmp_path_factory.mktemp("models")
    rows = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)
    tokens = dict(np.load(minilm.with_suffix(".npz")))
    for path, inputs in ((packages / "mlp.pt2", {"x": rows}), (minilm, tokens)):
        shutil.copy(path, directory)
        np.savez(directory / f"{path.stem}.npz", **inputs)
        with aoti.load(path) as model:
            out = model(**inputs)
        np.save(directory / f"{path.stem}.npy", out["embedding"] if isinstance(out, dict) else out)
    return directory


@pytest.fixture
def answers(models):
    """Run a model by what runs commands; compare with this process, give what it ran on."""

    def answers(
        run,
        python: object = "python",
        model: str = "mlp",
        *,
        at=models,
        engine="auto",
        prelude="",
        after="",
        **env,
    ):
        program = prelude + PROGRAM + after
        files = f"{at}/{model}.pt2", f"{at}/{model}.npz"
        output = run(python, "-c", program, *files, engine, **env)
        result = json.loads(output)
        wanted = np.load(models / f"{model}.npy")
        np.testing.assert_allclose(np.array(result.pop("out")), wanted, rtol=0, atol=1e-6)
        return result

    return answers


# -- a bare machine ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def debian(runtime, provider) -> Path:
    """The root of a minimal Debian with Python, made once by debootstrap."""
    for tool in ("debootstrap", "bwrap"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install debootstrap bubblewrap")
    if os.geteuid() != 0:
        pytest.skip("needs root: debootstrap and other users do")
    root = ROOT / "build/roots" / SUITE
    if not (root / "made").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(BARE)}", SUITE, root]
        subprocess.run(command, check=True)
        (root / "made").touch()
    return root


@pytest.fixture(scope="session")
def wheelhouse(runtime, provider, tmp_path_factory) -> Path:
    """A directory with both wheels and all that they depend on, for pip without a network."""
    directory = tmp_path_factory.mktemp("wheelhouse")
    for path in (runtime, provider):
        shutil.copy(path, directory)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--python-version=3.11", "--dest", directory, runtime]
    subprocess.run(command, check=True, cwd=directory)
    return directory


class Machine:
    """The bare Debian: nothing of this machine is seen in it but what is named."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts: list[object] = []

    def mount(self, source: Path, target: str, *, writable: bool = False) -> None:
        """Show a directory of this machine in there, to everybody."""
        source.chmod(0o755)
        self.mounts += ["--bind" if writable else "--ro-bind", source, target]

    def run(self, *command: object, uid: int = 0, check: bool = True, **env: str) -> str:
        """Run a command without a network; give its output, and errors if it may fail."""
        env = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", **env}
        sandbox = ["bwrap", "--die-with-parent", "--new-session", "--clearenv"]
        sandbox += ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        sandbox += [word for item in env.items() for word in ("--setenv", *item)]
        sandbox += ["--ro-bind", self.root, "/", "--proc", "/proc", "--dev", "/dev"]
        sandbox += ["--perms", "1777", "--tmpfs", "/tmp", "--tmpfs", "/media", *self.mounts]
        sandbox += ["--chdir", "/tmp", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        if uid:
            sandbox += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return output([*sandbox, *command], check=check)


@pytest.fixture
def machine(debian, wheelhouse, models) -> Machine:
    """A bare machine that has the wheels and the models."""
    machine = Machine(debian)
    machine.mount(wheelhouse, "/mnt")
    machine.mount(models, "/srv")
    return machine


@pytest.fixture(scope="session")
def standalone(debian, wheelhouse, tmp_path_factory) -> Path:
    """Both wheels in an environment of the bare machine, to be mounted at /opt."""
    directory = tmp_path_factory.mktemp("opt")
    install("aoti-runtime[standalone]", debian, wheelhouse, directory)
    return directory


@pytest.fixture(scope="session")
def alone(debian, wheelhouse, tmp_path_factory) -> Path:
    """aoti-runtime in an environment of the bare machine, to be mounted at /opt."""
    directory = tmp_path_factory.mktemp("opt")
    install("aoti-runtime", debian, wheelhouse, directory)
    return directory


def install(requirement: str, debian: Path, wheelhouse: Path, directory: Path) -> None:
    """`pip install` as users do, into a new environment at /opt/env, and nothing else."""
    machine = Machine(debian)
    machine.mount(wheelhouse, "/mnt")
    machine.mount(directory, "/opt", writable=True)
    machine.run("python3", "-m", "venv", "/opt/env")
    options = ["--quiet", "--no-index", "--find-links=/mnt", "--no-cache-dir"]
    machine.run("/opt/env/bin/pip", "install", *options, requirement)


# -- beside a torch ------------------------------------------------------------------------------


class Environment:
    """A virtual environment of this machine's Python with the wheel installed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "bin/python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site = directory / "lib" / version / "site-packages"

    def run(self, *command: object, check: bool = True, **env: str) -> str:
        """Run a command of the environment; give its output, and errors if it may fail."""
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), **env}
        program = self.directory / "bin" / str(command[0])
        return output([program, *command[1:]], check=check, env=environment, cwd=self.directory)


@pytest.fixture
def environment(runtime, tmp_path):
    """Make an environment with the wheel, beside the packages in other directories."""

    def environment(*beside: Path, wheels: tuple[Path, ...] = ()) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
        made = Environment(tmp_path / "env")
        (made.site / "beside.pth").write_text("".join(f"{path}\n" for path in beside))
        options = ["--quiet", "--no-deps", "--no-cache-dir", "--no-index"]
        made.run("python", "-m", "pip", "install", *options, runtime, *wheels)
        return made

    return environment
