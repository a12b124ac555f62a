"""A bundle is complete: copied anywhere, it runs by itself and looks for nothing elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti.engine.libtorch import find
from aoti.engine.libtorch_files import builds

if not builds():
    pytest.skip("needs a built engine", allow_module_level=True)
ROOT = Path(__file__).parents[2]
# And nothing else: no LIBTORCH, no PYTHONPATH. The native engine would need nothing of a bundle.
HOME = {"PATH": "/usr/bin:/bin", "AOTI_ENGINE": "libtorch"}
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, aoti
with aoti.load(sys.argv[1] + "/models/mlp.pt2") as model:
    out = model(np.load(sys.argv[2])["x"])
print(json.dumps({"out": out.tolist(), "aoti": aoti.__file__, "numpy": np.__file__,
                  **aoti.build_info()["libtorch"]}))
"""


def make(bundle: Path, *models: Path, **env: str) -> str:
    command = [sys.executable, ROOT / "tools/bundle", bundle, *models]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def bundle(packages, tmp_path_factory) -> Path:
    """A bundle with one model, moved away from where it was made."""
    directory = tmp_path_factory.mktemp("bundle")
    assert make(directory / "made", packages / "mlp.pt2") == ""
    moved = directory / "mit Leerzeichen/ü"
    moved.parent.mkdir()
    return (directory / "made").rename(moved)


@pytest.fixture
def inputs(tmp_path, rows) -> Path:
    np.savez(tmp_path / "in.npz", x=rows)
    return tmp_path / "in.npz"


def run(*command: object, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False,
        env={**HOME, "HOME": "/nonexistent", **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_runs_where_it_was_moved_to(bundle, inputs, mlp, rows, tmp_path):
    cache = {"AOTI_CACHE_DIR": str(tmp_path / "cache")}
    used = json.loads(run(sys.executable, "-I", "-S", "-c", PROGRAM, bundle, inputs, **cache))
    assert used["out"] == mlp(rows).tolist()
    assert used["path"] == f"{bundle}/libtorch/lib"
    assert used["source"] == "named by this bundle"
    assert Path(used["aoti"]).is_relative_to(bundle)
    assert Path(used["numpy"]).is_relative_to(bundle)


def test_its_command_line_is_the_directory(bundle, inputs, tmp_path):
    cache = {"AOTI_CACHE_DIR": str(tmp_path / "cache")}
    run(
        sys.executable,
        "-I",
        "-S",
        bundle,
        "check",
        bundle / "models/mlp.pt2",
        "-i",
        inputs,
        **cache,
    )


def test_its_libraries_are_looked_for_in_it_alone(bundle, inputs, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    log = tmp_path / "log"
    cache = {"AOTI_CACHE_DIR": str(tmp_path / "cache")}
    trace = ["strace", "-f", "-qq", "-s", "512", "-e", "trace=openat,open,stat,newfstatat,access"]
    run(*trace, "-o", log, sys.executable, "-I", "-S", "-c", PROGRAM, bundle, inputs, **cache)
    own = {path.name for path in (bundle / "libtorch/lib").iterdir()}
    asked = set(re.findall(r'"([^"]*\.so[^"/]*)"', log.read_text()))
    asked = {path.encode("latin-1").decode("unicode_escape").encode("latin-1").decode()
             for path in asked}  # fmt: skip
    looked = {path for path in asked if Path(path).name in own}
    assert looked
    assert not {path for path in looked if not Path(path).is_relative_to(bundle)}
    elsewhere = {path for path in asked - looked if not Path(path).is_relative_to(bundle)}
    system = ("/etc/ld.so", "/lib", "/usr/lib", str(Path(os.__file__).parent), sys.base_prefix,
              str(tmp_path / "cache"))  # fmt: skip
    assert not {path for path in elsewhere if not path.startswith(system)}


def test_all_run_paths_are_relative(bundle):
    files = [path for path in bundle.rglob("*.so*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        command = ["readelf", "-dW", path]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for found in re.findall(r"R(?:UN)?PATH\).*\[(.*)\]", said):
            assert all(part.startswith("$ORIGIN") for part in found.split(":")), path


def test_it_has_one_engine_and_the_licences(bundle):
    assert len(list(bundle.glob("aoti/engine/_libtorch/torch*/*.so"))) == 1
    assert len(list(bundle.glob("aoti/**/*.so"))) == 3  # and the array core, the native engine
    assert not list(bundle.glob("aoti/**/*.p?[xd]"))
    assert list(bundle.glob("licenses/**/LICENSE"))


def test_it_can_refer_to_the_libraries_instead(packages, tmp_path, inputs, mlp, rows):
    assert make(tmp_path / "small", packages / "mlp.pt2", AOTI_PORTABLE="0") == ""
    assert not (tmp_path / "small/libtorch").exists()
    cache = {"AOTI_CACHE_DIR": str(tmp_path / "cache")}
    used = json.loads(
        run(sys.executable, "-I", "-S", "-c", PROGRAM, tmp_path / "small", inputs, **cache)
    )
    assert used["out"] == mlp(rows).tolist()
    assert used["path"] == str(find(builds())[0].lib)


def test_a_bundle_without_its_libraries_says_so(packages, tmp_path, inputs):
    assert make(tmp_path / "small", AOTI_PORTABLE="0") == ""
    (tmp_path / "small/aoti/libtorch.path").write_text("../libtorch\n")
    shutil.copy(packages / "mlp.pt2", tmp_path / "small/models")
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, tmp_path / "small", inputs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=HOME)
    assert "Copy the bundle as a whole, or make it afresh" in done.stderr


def test_what_cannot_be_bundled_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    assert "exists already" in make(tmp_path / "there")
    (tmp_path / "bad.pt2").write_bytes(b"none")
    said = make(tmp_path / "out", tmp_path / "bad.pt2")
    assert "bad.pt2" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_libraries_of_rocm_are_never_copied(packages, tmp_path):
    """A libtorch that says it is ROCm's: the libraries of the installed one, and an empty one."""
    libtorch, _ = find(builds())
    lib = tmp_path / "rocm/lib"
    lib.mkdir(parents=True)
    for path in libtorch.lib.glob("*.so*"):
        (lib / path.name).symlink_to(path)
    (lib / "libtorch_hip.so").touch()
    (tmp_path / "rocm/build-version").write_text(f"{libtorch.version}\n")
    said = make(tmp_path / "out", LIBTORCH=str(tmp_path / "rocm"), AOTI_PORTABLE="1")
    assert said == f"the libraries of ROCm are not copied: the bundle refers to {lib}\n"
    assert not list((tmp_path / "out").rglob("libtorch_cpu*"))
    assert (tmp_path / "out/aoti/libtorch.path").read_text() == f"{tmp_path}/rocm\n"
    assert aoti.__file__
