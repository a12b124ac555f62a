"""aoti for CUDA, compiled and linked against a torch for CUDA; it needs no GPU.

usage: AOTI_CUDA_PYTHON=/path/to/python pytest -m cuda_build tests/cuda_build

That Python has a torch for CUDA, Cython, setuptools, numpy, click and rich; BACKEND=cuda
tools/setup makes one. aoti is built with pip, in a copy of the sources, and installed for these
tests alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti.engine.libtorch import Libtorch
from aoti.machine.gpu import gpus

pytestmark = pytest.mark.cuda_build

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("AOTI_CUDA_PYTHON", ROOT / ".venv/cuda/bin/python"))
SOURCES = ("aoti", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
FIND = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')"


@pytest.fixture(scope="module")
def torch() -> Path:
    """The directory of a torch for CUDA."""
    if not PYTHON.exists():
        pytest.skip(f"there is no {PYTHON}: run BACKEND=cuda tools/setup, or set AOTI_CUDA_PYTHON")
    done = subprocess.run([PYTHON, "-c", FIND], capture_output=True, text=True, check=True)
    root = Path(done.stdout.strip() or "/nowhere").parent
    found = Libtorch.read(root, "beside that Python")
    if not found.present or found.backend != "cuda":
        pytest.skip(f"{PYTHON} has no torch for CUDA, but {found}")
    return root


@pytest.fixture(scope="module")
def site(torch, tmp_path_factory) -> Path:
    """A directory with aoti, built against it."""
    scratch = tmp_path_factory.mktemp("cuda")
    for name in SOURCES:
        path, target = ROOT / name, scratch / "source" / name
        target.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(
                path, target, ignore=shutil.ignore_patterns("torch2*", "*.so", "__pycache__")
            )
        else:
            shutil.copy(path, target)
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--target", scratch / "site", scratch / "source"]
    done = subprocess.run(
        command,
        env={**os.environ, "AOTI_BACKEND": "cuda", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return scratch / "site"


@pytest.fixture
def run(site, tmp_path):
    """Run a program with that aoti; give its output."""

    def run(program: str, *arguments: object, check: bool = True, **env: str) -> str:
        done = subprocess.run(
            [PYTHON, "-c", program, *map(str, arguments)],
            env={
                **os.environ,
                "PYTHONPATH": str(site),
                "PYTHONSAFEPATH": "1",
                "AOTI_CACHE_DIR": str(tmp_path / "cache"),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout if check else done.stdout + done.stderr

    return run


def needed(path: Path) -> set[str]:
    said = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    return {line.split("[")[1][:-1] for line in said.stdout.splitlines() if "NEEDED" in line}


def test_the_engine_is_linked_with_nothing_of_cuda_and_the_core_not_even_with_libtorch(site):
    (engine,) = site.glob("aoti/engine/_libtorch/torch*/_libtorch*.so")
    (core,) = site.glob("aoti/engine/_core/_core*.so")
    libraries = {"libtorch_cpu.so", "libc10.so"}
    assert libraries <= needed(engine)
    assert not libraries & needed(core)
    for path in (engine, core):
        assert not [name for name in needed(path) if "cuda" in name or "cu13" in name]


def test_models_on_the_cpu_run_and_load_nothing_of_cuda(run, packages, tmp_path):
    rows = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)
    np.save(tmp_path / "rows.npy", rows)
    with aoti.load(packages / "mlp.pt2") as model:
        np.save(tmp_path / "wanted.npy", model(rows))
    run(
        """
import sys, numpy as np, aoti
(build,) = aoti.build_info()["builds"]
assert build["backend"] == "cuda", build
model = aoti.load(sys.argv[1])
got = model(np.load(sys.argv[2]))
assert np.allclose(got, np.load(sys.argv[3]), atol=1e-6), got
assert "libtorch_cuda" not in open("/proc/self/maps").read()
from aoti.engine import backend
backend.load()
assert "libtorch_cuda" in open("/proc/self/maps").read()
assert np.allclose(model(np.load(sys.argv[2])), got)
""",
        packages / "mlp.pt2",
        tmp_path / "rows.npy",
        tmp_path / "wanted.npy",
    )


def test_a_stream_of_another_library_has_its_handle_for_a_number(run):
    """What csrc/aoti/libtorch/devices.h counts on, asked of libtorch itself."""
    run("""
import ctypes
from aoti.engine import backend, libtorch
libtorch.engine()
backend.load()
class Stream(ctypes.Structure):
    _fields_ = [("device", ctypes.c_int8 * 2), ("number", ctypes.c_int64)]
library = ctypes.CDLL(str(libtorch.used()[0].lib / "libc10_cuda.so"))
find = library._ZN3c104cuda21getStreamFromExternalEP11CUstream_sta
find.restype, find.argtypes = Stream, (ctypes.c_void_p, ctypes.c_int8)
for handle in (0, 2, 0x55CFEF3F0FE0):
    assert find(handle, 1).number == handle
""")


@pytest.mark.skipif(bool(gpus()[0]), reason="there is a GPU")
def test_without_a_gpu_everything_says_so(run, packages, tmp_path):
    with (
        zipfile.ZipFile(packages / "stock.pt2") as old,
        zipfile.ZipFile(tmp_path / "gpu.pt2", "w") as new,
    ):
        for info in old.infolist():
            content = old.read(info).replace(b'_KEY": "cpu"', b'_KEY": "cuda"')
            new.writestr(info, content)
    said = run("import aoti, sys; aoti.load(sys.argv[1])", tmp_path / "gpu.pt2", check=False)
    assert "IncompatiblePackageError: the package needs a GPU, and there is none: no GPU" in said
    assert "cpu" in run("import aoti; print(*(d.device for d in aoti.devices()))").split()
    said = run("from aoti.engine.devices import *; check_device('cuda:0')", check=False)
    assert "cannot use cuda:0; it can use cpu: no GPU driver is installed" in said
    said = run(
        "from aoti.engine import backend, libtorch; libtorch.engine(); backend.load()\n"
        "from aoti.engine._core import _device; _device.find_device('cuda')",
        check=False,
    )
    assert "DeviceError: cuda cannot be used: CUDA error" in said


def test_another_libtorch_is_refused_in_a_line(run):
    spec = subprocess.run([sys.executable, "-c", FIND], capture_output=True, text=True, check=True)
    root = Path(spec.stdout.strip()).parent
    if Libtorch.read(root, "the tests'").backend != "cpu":
        pytest.skip("needs a torch for the CPU to mix it up with")
    said = run(
        "from aoti.engine import libtorch; libtorch.engine()", check=False, LIBTORCH=str(root)
    )
    last = said.strip().splitlines()[-1]
    assert "LibtorchError: found torch" in last
    assert "for cuda. Point LIBTORCH at a libtorch that fits." in last
