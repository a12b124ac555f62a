"""Weights that torch.save wrote are read as data."""

from __future__ import annotations

import io

import pytest

from aoti.errors import PackageError
from aoti.package.torch_pickle import open_storage

torch = pytest.importorskip("torch")


def saved(value) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def parameter(**state):
    value = torch.nn.Parameter(torch.arange(3.0))
    vars(value).update(state)
    return value


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(3.0),
        parameter(),
        parameter(note="text", scale=1.5, axes=(0, 1), options={"a": [True, None]}),
    ],
)
def test_a_tensor_is_read_whatever_plain_values_it_carries(value):
    with open_storage(saved(value), "weight_0") as (dtype, reader):
        assert dtype == "float32"
        assert reader.read() == value.detach().numpy().tobytes()


def test_a_parameter_with_an_object_is_refused():
    with (
        pytest.raises(PackageError, match="more than a tensor"),
        open_storage(saved(parameter(made_by=io.BytesIO)), "weight_0"),
    ):
        pass
