"""The wheels on a machine that has Python and nothing else: no compiler, no torch, no network."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
PYTHON = "/opt/env/bin/python"
SITE = "/opt/env/lib/python3.11/site-packages"
ENGINES = pytest.mark.parametrize("engine", ["native", "libtorch"])


@pytest.fixture
def installed(machine, standalone):
    """The machine with both wheels installed, where nobody can write."""
    machine.mount(standalone, "/opt")
    return machine


def test_the_machine_is_bare(machine):
    out = machine.run("sh", "-c", "command -v cc gcc strip; find / -xdev -name 'libgomp*'; ls /mnt")
    assert not [line for line in out.splitlines() if not line.endswith(".whl")]
    assert not [line for line in out.splitlines() if line.startswith("torch-")]
    failed = machine.run("python3", "-c", "import numpy", check=False)
    assert "No module named 'numpy'" in failed


@ENGINES
@pytest.mark.parametrize("model", ["mlp", "minilm"])
def test_models_run(installed, answers, model, engine):
    used = answers(installed.run, PYTHON, model, at="/srv", engine=engine)
    assert used["engine"] == engine
    assert used.get("path") == (f"{SITE}/aoti_libtorch/lib" if engine == "libtorch" else None)


@pytest.mark.parametrize("model", ["mlp", "minilm"])
def test_aoti_alone_runs_models(machine, alone, answers, model):
    machine.mount(alone, "/opt")
    used = answers(machine.run, PYTHON, model, at="/srv")
    assert used["engine"] == "native"
    assert "path" not in used  # no libtorch is there


def test_aoti_alone_is_small(alone):
    """Beside numpy, click and rich: below 10 MB as it is installed, with bytecode."""
    site = alone / "env/lib/python3.11/site-packages"
    own = [path for name in ("aoti", "aoti_runtime*") for path in site.glob(f"{name}/**/*")]
    assert sum(path.stat().st_size for path in own if path.is_file()) < 10e6


def test_pip_finds_nothing_missing(installed):
    assert "No broken requirements" in installed.run(PYTHON, "-m", "pip", "check")


def test_aoti_check_finds_all_in_order(installed):
    model = ["/srv/mlp.pt2", "-i", "/srv/mlp.npz"]
    installed.run("/opt/env/bin/aoti", "check", *model)


@pytest.mark.parametrize("place", ["/media/moved", "/media/mit Leerzeichen/\u00fc \u6a21\u578b"])
@ENGINES
def test_site_packages_can_be_moved(machine, standalone, answers, place, engine):
    machine.mount(standalone / "env/lib/python3.11/site-packages", place)
    used = answers(machine.run, "python3", at="/srv", engine=engine, PYTHONPATH=place)
    assert used["aoti"] == f"{place}/aoti/__init__.py"
    assert used.get("path") == (f"{place}/aoti_libtorch/lib" if engine == "libtorch" else None)


@ENGINES
def test_another_user_runs_it(installed, answers, engine):
    prelude = "import os; assert os.getuid() == 12345\n"
    assert answers(installed.run, PYTHON, at="/srv", engine=engine, uid=12345, prelude=prelude)


def test_uninstalling_leaves_nothing(machine, standalone, tmp_path, answers):
    shutil.copytree(standalone, tmp_path / "opt", symlinks=True)
    machine.mount(tmp_path / "opt", "/opt", writable=True)
    answers(machine.run, PYTHON, at="/srv")  # writes bytecode, as any first run does
    machine.run(PYTHON, "-m", "pip", "uninstall", "-y", "aoti-runtime", "aoti-libtorch-cpu")
    assert not list((tmp_path / "opt").rglob("*aoti*"))


def test_a_bundle_made_with_the_wheels_runs_where_nothing_is_installed(
    debian, machine, standalone, models, answers, tmp_path
):
    machine.mount(standalone, "/opt")
    machine.mount(ROOT / "tools", "/home")
    machine.mount(tmp_path, "/var/tmp", writable=True)
    machine.run(PYTHON, "/home/bundle", "/var/tmp/made", "/srv/mlp.pt2")
    (tmp_path / "made").rename(tmp_path / "moved")
    other = type(machine)(debian)
    other.mount(models, "/srv")
    other.mount(tmp_path / "moved", "/media/a b/\u00fc")
    other.run("python3", "/media/a b/\u00fc", "check", "/media/a b/\u00fc/models/mlp.pt2")
    prelude = "import sys; sys.path.insert(0, '/media/a b/\u00fc')\n"
    run = partial(answers, other.run, "python3", at="/srv", prelude=prelude)
    assert run()["engine"] == "native"
    assert run(engine="libtorch")["path"] == "/media/a b/\u00fc/libtorch/lib"
