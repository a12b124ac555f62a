"""Requests of the Open Inference Protocol in JSON. Needs pydantic, but no server."""

from __future__ import annotations

import json

import numpy as np
import pytest

import aoti
from aoti.serving.named_calls import NamedCalls

pytest.importorskip("pydantic", reason="Ray Serve brings it: pip install 'aoti-runtime[ray]'")

X = np.arange(6, dtype=np.float32).reshape(2, 3)
INPUTS = [
    {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": X.tolist()},
    {"name": "ids", "datatype": "INT64", "shape": [2], "data": [1, 2]},
    {"name": "scale", "datatype": "FP32", "shape": [3], "data": [1, 1, 1]},
]


@pytest.fixture
def answered(batch_packages):
    """Answer a request with the model `tagged`."""
    from aoti.serving.infer_request import InferRequest

    with aoti.load(batch_packages / "tagged.pt2") as model:
        calls = NamedCalls(model)

        def answered(document):
            request = InferRequest.read(json.dumps(document).encode())
            args, kwargs = calls.arguments(request.arrays(calls), "the request")
            return request.answers(calls, model(*args, **kwargs))

        yield answered


def test_outputs_are_those_that_are_asked_for(answered):
    scaled, sums = answered({"inputs": INPUTS})
    assert (scaled["name"], scaled["datatype"], [*scaled["shape"]]) == ("scaled", "FP32", [2, 3])
    assert scaled["data"] == (X + np.array([[1], [2]])).ravel().tolist()
    assert answered({"inputs": INPUTS[::-1], "outputs": [{"name": "sums"}]}) == [sums]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the request cannot be read: the body: Input should be an object"),
        ({}, "the request cannot be read: inputs: Field required"),
        ({"inputs": INPUTS[:2]}, "the request has no 'scale': it has x, ids"),
        ({"inputs": [*INPUTS, INPUTS[0]]}, "the request has the input 'x' twice"),
        ({"inputs": INPUTS, "outputs": [{"name": "y"}]}, "no output 'y'; it has scaled, sums"),
        ({"inputs": [{**INPUTS[0], "shape": [-2, 3]}]}, "the shape .* has a negative size"),
    ],
)
def test_what_is_not_a_request_is_refused(answered, document, message):
    with pytest.raises(aoti.InputError, match=message):
        answered(document)
