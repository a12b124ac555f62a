"""Models by name: where they are found, which one is meant, what goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti import registry
from aoti.cli.group import run

EXAMPLE = Path(__file__).parents[1] / "docs/examples/model_wheel"


@pytest.fixture
def models_dir(tmp_path, monkeypatch):
    """An empty directory of models, in force."""
    directory = tmp_path / "models"
    directory.mkdir()
    monkeypatch.setenv("AOTI_MODELS_DIR", str(directory))
    monkeypatch.chdir(tmp_path)
    return directory


def describe(directory, name, text="", package="m.pt2"):
    (directory / name).mkdir()
    (directory / name / "model.toml").write_text(text)
    if package:
        (directory / name / package).touch()
    return directory / name


def test_a_package_in_the_directory_is_known_by_its_name(models_dir, packages, capsys):
    (models_dir / "net.pt2").symlink_to(packages / "mlp.pt2")
    tuned = describe(
        models_dir,
        "tuned",
        'package = "link.pt2"\nversion = "2.0"\n[load]\nnum_runners = 2\ntimeout = 1',
    )
    (tuned / "link.pt2").symlink_to(packages / "mlp.pt2")
    with aoti.load("net") as net, aoti.load("tuned", num_runners=3) as tuned:
        x = np.ones((2, 10), np.float32)
        assert np.array_equal(net(x), tuned(x))
        assert (tuned.num_runners, tuned.timeout) == (3, 1.0)
    assert run(["info", "net", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "net"


def test_the_highest_version_is_meant_unless_one_is_named(models_dir):
    for version in ("1.9", "1.10", "1.2"):
        describe(models_dir, f"m-{version}", f'name = "m"\nversion = "{version}"')
    describe(models_dir, "m")
    assert registry.find("m").version == "1.10"
    assert registry.find("m@1.9").path == models_dir / "m-1.9/m.pt2"
    assert [str(model) for model in aoti.models()] == ["m", "m@1.2", "m@1.9", "m@1.10"]
    with pytest.raises(aoti.PackageNotFoundError, match=r"'?m@7'?.*known by name: m, m@1"):
        aoti.load("m@7")


def test_default_is_what_says_so_or_the_only_one(models_dir):
    describe(models_dir, "a")
    assert registry.find("default").name == "a"
    describe(models_dir, "b")
    with pytest.raises(aoti.PackageNotFoundError, match="known by name: a, b"):
        registry.find("default")
    describe(models_dir, "c", "default = true")
    assert registry.find("default").name == "c"
    describe(models_dir, "d", "default = true\nversion = '2'")
    with pytest.raises(aoti.AmbiguousModelError, match=r"c in .*; d@2 in"):
        registry.find("default")


def test_a_name_from_several_places_is_ambiguous(models_dir, tmp_path, monkeypatch, capsys):
    describe(models_dir, "m", 'version = "1"')
    beside = tmp_path / "app/models"
    beside.mkdir(parents=True)
    describe(beside, "m", 'version = "2"')
    describe(beside, "other")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "app/program"))
    with pytest.raises(aoti.AmbiguousModelError, match=r"m@1 in .*models; m@2 in .*app/models"):
        aoti.load("m")
    assert run(["info", "m"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert registry.find("m@2").place == str(beside)
    assert registry.find("other").path == beside / "other/m.pt2"


def test_a_file_of_that_name_is_not_confused_with_the_model(models_dir, packages, tmp_path):
    describe(models_dir, "m")
    shutil.copy(packages / "mlp.pt2", tmp_path / "m")
    with pytest.raises(aoti.AmbiguousModelError, match=r"write \./m for the file"):
        aoti.load("m")
    assert registry.resolve("./m") is None
    (tmp_path / "m").rename(tmp_path / "unregistered")
    assert registry.resolve("unregistered") is None
    assert registry.resolve("m").name == "m"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam = 'x'", "unknown key 'nam'; did you mean 'name'?"),
        ("version = 1", "version must be text, not 1"),
        ("version = 'one'", "a version must be numbers as in 2.1, not 'one'"),
        ("name = 'a/b'", "'a/b' is not a valid name"),
        ("[load]\nrunners = 2", "did you mean 'load.num_runners'?"),
        ("][", "is not TOML"),
        ("a = " + "[" * 10_000, "is not TOML"),
    ],
)
def test_a_broken_description_is_listed_and_hurts_no_other(models_dir, capsys, text, message):
    describe(models_dir, "bad", text)
    describe(models_dir, "good")
    with pytest.raises(aoti.ConfigError) as caught:
        aoti.load("bad")
    assert message in str(caught.value)
    assert registry.find("good").problem is None
    assert run(["models", "--json"]) == 0
    bad, good = json.loads(capsys.readouterr().out)
    assert message in bad["problem"]
    assert good["problem"] is None


def test_which_of_several_packages_must_be_said(models_dir):
    model = describe(models_dir, "m")
    (model / "n.pt2").touch()
    with pytest.raises(aoti.ConfigError, match=r"contains 2 packages; name one in model\.toml"):
        aoti.load("m")
    (model / "model.toml").write_text('package = "n.pt2"')
    assert registry.find("m").path == model / "n.pt2"


def test_a_directory_that_is_not_there_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("AOTI_MODELS_DIR", str(tmp_path / "none"))
    with pytest.raises(aoti.ConfigError, match=r"AOTI_MODELS_DIR=.*none: No such file"):
        aoti.load("m")
    assert run(["models"]) == 2
    assert capsys.readouterr().err.startswith("aoti: AOTI_MODELS_DIR=")


def test_no_models_is_said(monkeypatch, capsys):
    monkeypatch.delenv("AOTI_MODELS_DIR", raising=False)
    monkeypatch.setattr(registry, "models_in_wheels", lambda: iter(()))
    assert run(["models"]) == 0
    assert "no models are known by name" in capsys.readouterr().out
    with pytest.raises(aoti.PackageNotFoundError, match="known by name: none"):
        aoti.load("m")


def test_a_wheel_brings_a_model(packages, tmp_path, run_python):
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project)
    shutil.copy(packages / "mlp.pt2", project / "acme_mlp/model.pt2")
    (project / "acme_mlp/__init__.py").write_text("raise SystemExit('it was imported')")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    build = ["wheel", "--no-build-isolation", "--wheel-dir", tmp_path, project]
    subprocess.run([*pip, *build, *offline], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("acme_mlp-1.2-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--target", site, wheel, *offline], check=True)
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import aoti
(found,) = [model for model in aoti.models() if model.name == "acme-mlp"]
assert (found.version, found.place) == ("1.2", "wheel acme-mlp 1.2"), found
with aoti.load("acme-mlp") as model:
    print(model.inputs[0].name)
assert "acme_mlp" not in sys.modules
"""
    assert run_python(program, site) == "x\n"


def test_an_entry_point_to_nothing_is_listed(tmp_path, run_python):
    info = tmp_path / "gone-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: gone\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[aoti.models]\ngone = gone_models.deep:x\n")
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import aoti
try:
    aoti.load("gone")
except aoti.ConfigError as error:
    print(error)
"""
    assert "gone = 'gone_models.deep:x' does not name a Python package" in run_python(
        program, tmp_path
    )
