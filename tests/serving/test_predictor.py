"""Batches by column: what workers of Ray Data run. Needs no Ray."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import aoti
from aoti.serving.ray import Predictor

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def pair():
    """A batch for the model `halves`, whose number is part of the package."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return {"half": X.astype(np.float16), "brain": X.astype(ml_dtypes.bfloat16)}


def test_columns_are_inputs_and_outputs_are_columns(batch_packages, pair):
    found = Predictor(batch_packages / "halves.pt2")({**pair, "other": np.zeros(2)})
    assert list(found) == ["half", "brain"]
    assert all(column.tolist() == (X * 3).tolist() for column in found.values())


def test_columns_are_kept_and_options_are_those_of_load(batch_packages):
    predictor = Predictor(batch_packages / "wide.pt2", keep=["row"], num_runners=2)
    assert predictor.model.num_runners == 2
    batch = {"input": np.ones((2, 4), np.float32), "row": np.array([7, 8])}
    found = predictor(batch)
    assert list(found) == ["output", "row"]
    assert found["row"] is batch["row"]
    with aoti.load(batch_packages / "wide.pt2") as model:
        assert np.array_equal(found["output"], model(batch["input"]))


def test_lists_of_the_same_length_are_one_array(batch_packages):
    predictor = Predictor(batch_packages / "wide.pt2")
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    lists = np.empty(2, object)
    lists[:] = list(rows)
    assert np.array_equal(predictor({"input": lists})["output"], predictor.model(rows))
    lists[1] = rows[1, :3]
    with pytest.raises(aoti.InputError, match="input: the rows have different sizes"):
        predictor({"input": lists})


def test_a_batch_that_does_not_fit_is_refused(batch_packages):
    predictor = Predictor(batch_packages / "lookup.pt2", keep=("row",))
    with pytest.raises(aoti.InputError, match="the batch has no 'input': it has row, and the model "
                       "takes input"):  # fmt: skip
        predictor({"row": np.zeros(2)})
    with pytest.raises(aoti.InputError, match="keep: the batch has no 'row': it has input"):
        predictor({"input": np.zeros(2, np.int64)})
    with pytest.raises(aoti.InputTypeError, match="expected int64"):
        predictor({"input": np.zeros(2), "row": np.zeros(2)})


def test_a_model_whose_outputs_are_not_columns_is_refused(batch_packages):
    with pytest.raises(aoti.ConfigError, match="keep: the model has an output 'output'"):
        Predictor(batch_packages / "wide.pt2", keep=["output"])
    batch = {"x": np.ones((4, 8, 3), np.float32), "h": np.ones((1, 8, 3), np.float32),
             "pairs": np.ones((16, 3), np.float32)}  # fmt: skip
    with pytest.raises(aoti.ConfigError, match="each output must have as many"):
        Predictor(batch_packages / "time_first.pt2")(batch)


@pytest.mark.filterwarnings("ignore:.*does not describe its inputs")
def test_a_package_that_does_not_describe_itself_is_refused(packages, tmp_path):
    with (
        zipfile.ZipFile(packages / "stock.pt2") as old,
        zipfile.ZipFile(tmp_path / "stripped.pt2", "w") as new,
    ):
        for item in old.infolist():
            new.writestr(item, b"" if item.filename.endswith(".cpp") else old.read(item))
    with pytest.raises(aoti.ConfigError, match="does not describe its inputs and outputs"):
        Predictor(tmp_path / "stripped.pt2")
