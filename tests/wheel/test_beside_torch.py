"""The thin wheel beside installed torches, and beside the provider.

Besides the torch of the tests, those in the directories that AOTI_TEST_TORCH names (separated by
``:``; each a site-packages) are run on.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from aoti.engine.libtorch_files import minor_of, read_version

pytestmark = pytest.mark.wheel

SPEC = importlib.util.find_spec("torch")
OWN = [Path(SPEC.origin).parents[1]] if SPEC and SPEC.origin else []
NAMED = [Path(name) for name in os.environ.get("AOTI_TEST_TORCH", "").split(os.pathsep) if name]
SITES = [pytest.param(site, id=read_version(site / "torch")) for site in OWN + NAMED]
TORCH = """
import torch
one = torch.nn.Linear(2, 1)(torch.ones(3, 2)).shape
assert one == (3, 1), one
"""
GLOBAL = """
import os, sys
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
"""
LIBTORCHES = """
maps = open("/proc/self/maps").read().splitlines()
maps = set(line.split(maxsplit=5)[5] for line in maps if "/libtorch_cpu.so" in line)
assert len(maps) == {}, maps
"""
ORDERS = {  # what runs before the model, and after it
    "alone": ("", ""),
    "torch first": (TORCH, ""),
    "torch after": ("", TORCH),
    "global torch first": (GLOBAL + TORCH, ""),
    "global torch after": ("", GLOBAL + TORCH),
}


@pytest.fixture
def fitting(runtime, site) -> Path:
    """A torch for which the wheel has an engine."""
    minor = minor_of(str(read_version(site / "torch")))
    with ZipFile(runtime) as wheel:
        if not any(f"/torch{minor.replace('.', '')}/" in name for name in wheel.namelist()):
            pytest.skip(f"{runtime.name} has no engine for torch {minor}")
    return site


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("site", SITES)
def test_the_native_engine_runs_beside_every_torch(environment, answers, site, order):
    made = environment(site)
    before, after = ORDERS[order]
    after += LIBTORCHES.format(0 if order == "alone" else 1)
    used = answers(made.run, prelude=before, after=after)
    assert Path(used["aoti"]).is_relative_to(made.directory)
    assert used["engine"] == "native"
    assert "path" not in used  # aoti itself looked for no libtorch


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("site", SITES)
def test_the_libtorch_engine_runs_on_the_installed_torch(environment, answers, fitting, order):
    made = environment(fitting)
    before, after = ORDERS[order]
    after += LIBTORCHES.format(1)
    used = answers(made.run, engine="libtorch", prelude=before, after=after)
    assert Path(used["aoti"]).is_relative_to(made.directory)
    assert Path(used["path"]).samefile(fitting / "torch/lib")
    assert minor_of(used["version"]) == minor_of(read_version(fitting / "torch"))


@pytest.fixture
def dependencies(tmp_path):
    """A directory with what aoti depends on, and no torch."""
    directory = tmp_path / "dependencies"
    directory.mkdir()
    for name in ("numpy", "numpy.libs", "click", "rich", "pygments", "markdown_it", "mdurl"):
        (directory / name).symlink_to(OWN[0] / name)
    return directory


def write_torch(site: Path, version: str) -> Path:
    """What looks like an installed torch, and is none."""
    (site / "torch/lib").mkdir(parents=True)
    for name in ("__init__.py", "lib/libc10.so", "lib/libtorch_cpu.so"):
        (site / "torch" / name).touch()
    (site / "torch/version.py").write_text(f"__version__ = '{version}'\n")
    return site


@pytest.mark.parametrize("version", ["2.10.0", "2.99.0+cu130"])
def test_a_torch_without_an_engine_is_refused(environment, models, dependencies, tmp_path, version):
    made = environment(write_torch(tmp_path / "site", version), dependencies)
    infer = ["aoti", "infer", "-m", models / "mlp.pt2", "-i", models / "mlp.npz"]
    made.run(*infer)  # on the native engine
    said = made.run(*infer, check=False, AOTI_ENGINE="libtorch")
    assert f"found torch {version}" in said
    assert "pip install 'torch==2." in said
    assert "Traceback" not in said


def test_the_provider_stands_in_for_a_torch_without_an_engine(
    environment, answers, provider, dependencies, tmp_path
):
    site = write_torch(tmp_path / "site", "2.10.0")
    made = environment(site, dependencies, wheels=(provider,))
    prelude = "import warnings\nwith warnings.catch_warnings(record=True) as caught:\n"
    load = "    import aoti, sys; aoti.load(sys.argv[1], engine='libtorch')\n"
    after = "assert 'Importing torch into this process will fail' in str(caught[0].message)\n"
    used = answers(made.run, engine="libtorch", prelude=prelude + load, after=after)
    assert used["source"] == "the installed package aoti_libtorch"


@pytest.mark.parametrize("site", SITES)
def test_the_installed_torch_comes_before_the_provider(environment, answers, provider, fitting):
    made = environment(fitting, wheels=(provider,))
    used = answers(made.run, engine="libtorch", after=TORCH + LIBTORCHES.format(1))
    assert Path(used["path"]).samefile(fitting / "torch/lib")


@pytest.mark.parametrize("site", SITES)
def test_pip_finds_nothing_missing(environment, site):
    made = environment(site)
    said = made.run("python", "-m", "pip", "check", check=False)
    assert "aoti" not in said, said
