"""What clients get for the errors of a model, behind each server."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

import aoti
from aoti.serving.statuses import headers_of, status_of

ERRORS = {
    aoti.InputError: 400,
    aoti.InputTypeError: 400,
    aoti.ModelNotFoundError: 404,
    aoti.QueueFullError: 503,
    aoti.ModelClosedError: 503,
    aoti.RunTimeoutError: 504,
    aoti.ExecutionError: 500,
}


@pytest.mark.parametrize(("kind", "status"), ERRORS.items())
def test_each_error_has_a_status(kind, status):
    assert status_of(kind("no")) == status
    assert headers_of(status) == ({"Retry-After": "1"} if status == 503 else {})


@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.skipif(not find_spec("ray"), reason="needs Ray: pip install 'aoti-runtime[ray]'")
@pytest.mark.parametrize(("kind", "status"), ERRORS.items())
def test_they_are_those_of_a_replica_of_ray(kind, status):
    from aoti.serving.ray_replica import app

    answer = app.exception_handlers[aoti.AotiError](None, kind("no"))
    assert (answer.status_code, json.loads(answer.body)) == (status, {"error": "no"})
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
