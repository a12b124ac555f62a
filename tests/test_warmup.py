"""The first run, made while loading."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import aoti

NAMES = "mlp tree alias dtypes shared layouts lookup derived inplace stock stock_lookup".split()


@pytest.mark.parametrize("name", NAMES)
def test_zeros_are_made_for_any_signature(packages, name):
    aoti.load(packages / f"{name}.pt2", warmup=True).close()


def test_inputs_may_be_given(packages, rows, place):
    aoti.load(packages / "mlp.pt2", warmup=[rows]).close()
    with pytest.raises(aoti.InputError):
        aoti.load(packages / "mlp.pt2", warmup=[rows[:, :9]], cache=False)


def test_weights_that_are_not_there_are_named(weight_packages):
    with pytest.raises(aoti.ConstantError, match=r"never loaded: l1\.weight"):
        aoti.load(weight_packages / "bare.pt2", warmup=True)


def test_a_package_that_tells_nothing_needs_inputs(packages, tmp_path):
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(packages / "stock.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if not name.endswith(".cpp"):
                new.writestr(name, old.read(name))
    with (
        pytest.warns(UserWarning, match="does not describe its inputs"),
        pytest.raises(aoti.ConfigError, match="does not say what inputs"),
    ):
        aoti.load(path, warmup=True)
    with pytest.warns(UserWarning, match="does not describe its inputs"):
        aoti.load(path, warmup=[np.zeros((8, 10), np.float32)]).close()
