"""Settings from files and the environment: what goes over what, and what is refused."""

from __future__ import annotations

import json
import logging
import re
import shutil
from inspect import signature
from pathlib import Path

import pytest

import aoti
from aoti.cache import cache
from aoti.cli.group import run
from aoti.config import _KEYS
from aoti.options import SETTINGS

EXAMPLE = Path(__file__).parents[1] / "docs/examples/aoti.toml"
ROW = json.dumps({"data": [0] * 10, "shape": [1, 10]})


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file of settings; give its path. No variable of the tests' own goes over it."""
    for key in _KEYS:
        monkeypatch.delenv("AOTI_" + key.replace(".", "_").upper(), raising=False)
    monkeypatch.setattr(cache, "configured", {})

    def write(text):
        (tmp_path / "aoti.toml").write_text(text)
        return tmp_path / "aoti.toml"

    yield write
    logger = logging.getLogger("aoti")
    logger.setLevel(logging.NOTSET)
    logger.handlers[1:] = []


def test_every_load_option_of_a_file_is_one_of_load_and_of_config():
    own = {"model", "cache_dir", "cache_size", "logging_level"}
    keys = {re.sub(r"^batching\..*", "batching", key) for key in _KEYS}
    keys = {key.replace(".", "_").replace("cache_enabled", "cache") for key in keys}
    assert keys - own <= signature(aoti.load).parameters.keys()
    empty = aoti.Config()
    assert {key: getattr(empty, key) for key in keys} == dict.fromkeys(keys)
    with pytest.raises(AttributeError):
        _ = empty.nonsense
    with pytest.raises(aoti.ConfigError, match="'num_runner'; did you mean 'num_runners'"):
        aoti.Config(num_runner=2)


def test_the_example_loads_a_model(write, packages, tmp_path):
    path = write(EXAMPLE.read_text())
    shutil.copy(packages / "mlp.pt2", tmp_path)
    config = aoti.Config.from_file(path)
    options = {name.partition(".")[0] for name in SETTINGS}
    assert set(config.options) == options - {"sha256", "weights"}
    assert config.batching == aoti.Batching(max_size=32, max_delay=0.002, dim="batch")
    with aoti.load(config, num_runners=3) as model:
        assert model.path == str(tmp_path / "mlp.pt2")
        assert (model.num_runners, model.timeout) == (3, 2.5)
    assert len(list((tmp_path / "cache/v1").glob("*-native-model"))) == 1
    assert cache.location() == tmp_path / "cache/v1"
    assert logging.getLogger("aoti").level == logging.WARNING


def test_flags_go_over_the_environment_and_that_over_the_file(write, monkeypatch):
    path = write("num_runners = 2\nintra_op_threads = 2\nqueue_size = 2\n[cache]\nsize = '1G'")
    monkeypatch.setenv("AOTI_NUM_RUNNERS", "3")
    monkeypatch.setenv("AOTI_INTRA_OP_THREADS", "3")
    monkeypatch.setenv("AOTI_CACHE_SIZE", "2G")
    monkeypatch.setenv("AOTI_VALIDATE", "no")
    monkeypatch.setenv("AOTI_DEVICE", "")  # as not set
    config = aoti.Config.from_file(path).override(intra_op_threads=4, device=None)
    assert config.options == {
        "num_runners": 3, "intra_op_threads": 4, "queue_size": 2, "validate": False
    }  # fmt: skip
    assert config.cache_size == "2G"
    assert aoti.Config.from_file(path, environ={}).num_runners == 2
    assert aoti.Config.from_environment({"AOTI_TIMEOUT": "1.5"}) == aoti.Config(timeout=1.5)


@pytest.mark.parametrize(
    ("model", "place"),
    [("m.pt2", "{here}/m.pt2"), ("sub/m", "{here}/sub/m"), ("minilm", "minilm"), ("/m", "/m"),
     ("there", "{here}/there")],
)  # fmt: skip
def test_paths_are_taken_from_the_file_and_names_as_they_are(write, tmp_path, model, place):
    (tmp_path / "there").mkdir()
    config = aoti.Config.from_file(write(f'model = "{model}"'))
    assert config.model == place.format(here=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_runner = 2", "unknown key 'num_runner'; did you mean 'num_runners'?"),
        ("runners = 2", "did you mean 'num_runners'?"),
        ("threads = 2", "did you mean 'intra_op_threads'?"),
        ("[cache]\ndirectory = 'x'", "unknown key 'cache.directory'; did you mean 'cache.dir'?"),
        ("cache = true", "unknown key 'cache'"),
        ("[log]\nlevel = 'info'", "unknown key 'log'"),
        ("zzz = 1", "known are model, "),
        ("num_runners = '2'", "num_runners must be a whole number, not '2'"),
        ("num_runners = true", "num_runners must be a whole number, not True"),
        ("timeout = false", "timeout must be a number, not False"),
        ("validate = 1", "validate must be true or false, not 1"),
        ("[logging]\nlevel = 'loud'", "logging.level must be one of debug, info, warning, error"),
        ("a = ", "is not TOML"),
        ("a = " + "[" * 10_000, "is not TOML"),
        ("a = 1\n" + "#" * (1 << 20), "is not TOML: it has more than 1048576 bytes"),
    ],
)
def test_what_does_not_fit_is_one_line_and_code_2(write, capsys, text, message):
    assert run(["infer", "--config", str(write(text)), "-i", "-"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_document_goes_over_a_configuration():
    config = aoti.Config("a.pt2", num_runners=2)
    updated = config.updated({"weights": "w", "batching": {"max_size": 4}})
    assert updated.options == {
        "num_runners": 2, "weights": "w", "batching": aoti.Batching(max_size=4)
    }  # fmt: skip
    assert config.updated({"model": "b.pt2"}).model == "b.pt2"
    with pytest.raises(aoti.ConfigError, match="did you mean 'weights'"):
        config.updated({"weight": "w"})
    with pytest.raises(aoti.ConfigError, match="num_runners must be a whole number"):
        config.updated({"num_runners": "2"})


def test_a_variable_that_does_not_fit_is_named(write, monkeypatch):
    for variable, text in (("AOTI_VALIDATE", "maybe"), ("AOTI_QUEUE_SIZE", "many")):
        with pytest.raises(aoti.ConfigError, match=f"the variable {variable} must be"):
            aoti.Config.from_environment({variable: text})


def test_infer_goes_by_the_file(write, packages, tmp_path, capsys):
    (tmp_path / "in.json").write_text(ROW)
    arguments = ["infer", "-i", str(tmp_path / "in.json"), "--json"]
    path = write(f'model = "{packages}/mlp.pt2"\nmodel_name = "none"')
    assert run([*arguments, "--config", str(path)]) == 2
    assert "it holds 'model'" in capsys.readouterr().err
    assert run([*arguments, "--config", str(path), "--model-name", "model"]) == 0
    assert run([*arguments, "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: No such file" in capsys.readouterr().err
    with pytest.raises(aoti.ConfigError, match="names no model"):
        aoti.load(aoti.Config())
