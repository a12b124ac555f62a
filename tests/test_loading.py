"""Loading: from where, with what options, and what is refused before it could crash."""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
import subprocess
import sys
import zipfile
from dataclasses import fields

import numpy as np
import pytest

import aoti
from aoti.options import DEFAULTS, LoadOptions


def test_a_package_comes_from_a_path_bytes_or_a_file(packages, mlp, rows):
    content = (packages / "mlp.pt2").read_bytes()
    with (packages / "mlp.pt2").open("rb") as file:
        for source in (content, bytearray(content), memoryview(content), file):
            with aoti.load(source) as model:
                assert model(rows).tolist() == mlp(rows).tolist()
        assert not file.closed


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("name", ["m\udcff", "ü \n%s"])
def test_paths_need_not_be_text(packages, mlp, rows, tmp_path, monkeypatch, name, cache):
    directory = tmp_path / name
    directory.mkdir()
    monkeypatch.setenv("AOTI_CACHE_DIR", str(directory / "cache"))
    monkeypatch.setenv("TMPDIR", str(directory))
    (directory / "m.pt2").symlink_to(packages / "mlp.pt2")
    # In a process of its own: what is mapped stays in /proc/self/maps, which other tests read.
    program = (
        "import sys, aoti, numpy as np\n"
        "path, rows = sys.argv[1], np.load(sys.argv[2])\n"
        f"with aoti.load(path, cache={cache}) as model:\n"
        "    assert model.path == path\n"
        "    np.save(sys.argv[2], model(rows))\n"
    )
    np.save(tmp_path / "rows.npy", rows)
    command = [sys.executable, "-c", program, directory / "m.pt2", tmp_path / "rows.npy"]
    subprocess.run(command, check=True)
    assert np.load(tmp_path / "rows.npy").tolist() == mlp(rows).tolist()


def test_an_older_libtorch_gets_an_archive(packages, mlp, rows, monkeypatch):
    monkeypatch.setattr("aoti.engine.libtorch.minor", lambda: (2, 12))
    for cache in (True, False):
        with aoti.load(packages / "mlp.pt2", cache=cache, engine="libtorch") as model:
            assert model.info().code.suffix == ".pt2"
            assert model(rows).tolist() == mlp(rows).tolist()


def test_a_private_extraction_is_gone_with_its_model(packages, mlp, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with aoti.load(packages / "mlp.pt2", cache=False) as model:
        assert model(rows).tolist() == mlp(rows).tolist()
        assert model.info().entry.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unlinked", "not linked with libtorch"),
        ("custom", r"aoti_tests::halve.* import the Python package that defines it"),
    ],
)
def test_a_package_that_would_crash_is_refused(packages, name, words):
    with pytest.raises(aoti.IncompatiblePackageError, match=words):
        aoti.load(packages / f"{name}.pt2")


@pytest.mark.parametrize("name", ["weights_blob", "weights_mmap", "weights_pickle", "stock"])
def test_weights_are_found_wherever_they_are(packages, mlp, name):
    rows = np.random.default_rng(1).standard_normal((8, 10), dtype=np.float32)
    with aoti.load(packages / f"{name}.pt2") as model:
        assert np.allclose(model(rows), mlp(rows))


@pytest.fixture
def stripped(packages, tmp_path):
    """A package without its generated C++."""
    with zipfile.ZipFile(packages / "stock.pt2") as archive:
        archive.extractall(tmp_path)
    for path in tmp_path.rglob("*.cpp"):
        path.unlink()
    return tmp_path


def test_a_package_that_tells_nothing_warns_and_runs(stripped, mlp, rows):
    with pytest.warns(UserWarning, match="does not describe its inputs"):
        model = aoti.load(stripped)
    with model:
        assert model.inputs is None
        assert np.allclose(model(rows), mlp(rows))


@pytest.mark.parametrize("load", [aoti.load, aoti.AOTIModel.load])
def test_a_warning_points_at_the_callers_line(stripped, load):
    with pytest.warns(UserWarning, match="does not describe its inputs") as caught:
        load(stripped).close()
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("load", [aoti.load, aoti.AOTIModel.load])
def test_the_options_are_those_of_the_dataclass(packages, load):
    spelled = [p for p in inspect.signature(load).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in spelled] == [
        (option.name, option.default) for option in fields(LoadOptions)
    ]
    documented = re.findall(r"^(\w+)(?: : .*)?$", inspect.cleandoc(aoti.load.__doc__), re.MULTILINE)
    assert [name for name in documented if name in DEFAULTS] == [*DEFAULTS]
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'nonsense'"):
        load(packages / "mlp.pt2", nonsense=1)


def test_the_digest_is_verified_before_anything_is_loaded(packages, rows):
    path = packages / "mlp.pt2"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with aoti.load(path, sha256=digest.upper()) as model:
        assert model(rows).shape == (3, 1)
    with pytest.raises(aoti.IntegrityError, match=f"its SHA-256 is {digest}, not {'0' * 64}"):
        aoti.load(path, sha256="0" * 64)
    with pytest.raises(aoti.ConfigError, match="64 hexadecimal digits"):
        aoti.load(path, sha256="abc")


def test_what_a_package_says_of_itself(packages, mlp):
    path = packages / "mlp.pt2"
    assert mlp.metadata["author"] == "the tests"
    assert mlp.metadata == mlp.get_metadata() == aoti.load_metadata_from_package(path)
    assert mlp.metadata["AOTI_DEVICE_KEY"] == "cpu"
    assert mlp.get_call_spec() == list(mlp.call_spec)
    # Frozen: what was laid out for the kernels has lost its name.
    assert list(mlp.constant_fqns) == mlp.get_constant_fqns()
    assert "l1.bias" in mlp.constant_fqns
    assert "l1.weight" not in mlp.constant_fqns
    assert mlp.device == aoti.Device("cpu")
    assert "float32" in repr(mlp)
    assert str(path) in repr(mlp)


def test_one_package_loads_many_times(packages, rows):
    models = [aoti.load(packages / "mlp.pt2") for _ in range(5)]
    assert len({model(rows).tobytes() for model in models}) == 1
    for model in models[1:]:
        model.close()
    assert models[0](rows).shape == (3, 1)
    models[0].close()


def test_classmethod_and_options(packages, rows):
    with aoti.AOTIModel.load(packages / "mlp.pt2", single_threaded=True, device="cpu") as model:
        assert model(rows).shape == (3, 1)
    with aoti.load(packages / "mlp.pt2", model_name="model", num_runners=3) as model:
        assert model.num_runners == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_runners": 0}, aoti.ConfigError, "at least 1"),
        ({"num_runners": 2.5}, TypeError, "integer"),
        ({"num_runners": 2, "single_threaded": True}, aoti.ConfigError, "one runner"),
        ({"model_name": "other"}, aoti.ModelNotFoundError, "it holds 'model'"),
        (
            {"device": "cuda"},
            aoti.IncompatiblePackageError,
            "compiled for cpu, but cuda was requested",
        ),
        ({"device": "gpu"}, aoti.DeviceError, "is not a device"),
        ({"device_index": 1}, aoti.DeviceError, "no cpu device number 1"),
    ],
)
def test_wrong_options_are_clear_errors(packages, options, error, message):
    with pytest.raises(error, match=message):
        aoti.load(packages / "mlp.pt2", **options)


def test_a_loaded_model_is_not_copied(mlp, rows):
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(mlp)
    assert mlp(rows).shape == (3, 1)


def test_a_forked_child_can_close_while_the_parent_runs(packages, run_python):
    program = """
import os, sys, threading, warnings, numpy as np, aoti
warnings.simplefilter("ignore")  # Python 3.12 warns of forks where there are threads
x = np.full((1000, 1000), 1e-3, np.float32)
model = aoti.load(sys.argv[1])
runner = threading.Thread(target=model, args=(x,))
runner.start()
child = os.fork()
if child == 0:
    model.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
runner.join()
model.close()
"""
    run_python(program, packages / "slow.pt2")


def test_a_missing_or_foreign_file_is_a_clear_error(packages, tmp_path):
    with pytest.raises(FileNotFoundError, match="no package at"):
        aoti.load(tmp_path / "none.pt2")
    with pytest.raises(aoti.PackageError, match=r"torch\.export\.save"):
        aoti.load(packages / "program.pt2")


@pytest.mark.parametrize("engine", ["native", "libtorch"])
def test_a_failing_run_is_one_line_with_the_rest_as_notes(packages, engine):
    with aoti.load(packages / "stock_lookup.pt2", engine=engine) as model:
        with pytest.raises(aoti.ExecutionError) as failure:
            model(np.array([0, 7]))
        assert "index out of bounds" in str(failure.value)
        assert "\n" not in str(failure.value)
        assert engine == "native" or failure.value.__notes__
        assert model(np.array([4, 4]))[0].tolist() == [16, 17, 18, 19]


def test_models_load_in_a_process_without_torch(packages, run_python):
    program = """
import sys, numpy as np, aoti
with aoti.load(sys.argv[1]) as model:
    print(model(np.ones((2, 10), np.float32)).shape)
assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
"""
    assert run_python(program, packages / "mlp.pt2") == "(2, 1)\n"


def test_methods_tell_their_parameters(mlp):
    assert str(inspect.signature(mlp.run)) == "(inputs, *, outputs=None, out=None, stream=None)"
    assert list(inspect.signature(mlp.boxed_run).parameters) == ["inputs", "stream"]


def test_info_says_what_runs_and_what_is_mapped(weight_packages, cache_directory):
    with aoti.load(weight_packages / "blob.pt2", num_runners=2, intra_op_threads=1) as model:
        info = model.info()
        assert (info.engine, info.device, info.num_runners) == (model.engine, "cpu", 2)
        assert (info.intra_op_threads, info.weights_version) == (1, 1)
        assert (info.running, info.waiting) == (0, 0)
        assert info.entry.is_relative_to(cache_directory)
        assert info.code.is_relative_to(info.entry)
        assert info.weights_file is not None
        assert 0 < info.weights_bytes <= info.weights_file.stat().st_size
        model.weights.update(model.weights.extract())
        changed = model.info()
        assert (changed.weights_version, changed.weights_file, changed.weights_bytes) == (
            2,
            None,
            0,
        )
        model.weights.rollback()
        assert model.info() == info


SUBINTERPRETER = """
import importlib.util, sys
name = "_interpreters" if importlib.util.find_spec("_interpreters") else "_xxsubinterpreters"
interpreters = importlib.import_module(name)
run = getattr(interpreters, "run_string", None) or interpreters.exec
run(interpreters.create(), f'''
import sys
sys.path[:] = {sys.path!r}
import aoti
try:
    aoti.load({sys.argv[1]!r})
except aoti.LibtorchError as error:
    assert "main interpreter only" in str(error)
else:
    raise SystemExit("loaded")
''')
import aoti
print(aoti.load(sys.argv[1]).signature.inputs[0].name)
"""


def test_a_load_in_a_subinterpreter_is_refused_and_leaves_the_main_one_as_it_was(
    packages, run_python
):
    assert run_python(SUBINTERPRETER, packages / "mlp.pt2") == "x\n"
