"""Records of calls: what is in them, callbacks, Chrome traces."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest

import aoti
from aoti.testing import FakeModel

X = np.ones((1, 10), np.float32)


def test_calls_of_a_model_are_recorded(mlp):
    seen = []
    trace = aoti.Trace(seen.append)
    model = trace.watch(mlp)
    assert isinstance(model, aoti.ModelRunner)
    assert np.array_equal(model(x=X), mlp(X))
    model.run([X], outputs="numpy")
    model.boxed_run([X])
    model.infer([X])
    model.submit(X).result()
    asyncio.run(model.run_async(X))
    assert asyncio.run(model.infer_async([X])).version == 1
    with pytest.raises(aoti.InputError):
        model(X[:, :3])
    methods = [record.method for record in trace.records]
    assert sorted(methods[:4]) == sorted(["call", "run", "boxed_run", "infer"])
    assert set(methods) == {
        "call",
        "run",
        "boxed_run",
        "infer",
        "submit",
        "run_async",
        "infer_async",
    }
    assert seen == trace.records
    assert {record.name for record in seen} == {"model"}
    assert [record.error for record in seen] == [None] * 7 + ["InputError"]
    assert all(record.duration_ns > 0 for record in seen)
    assert {record.thread for record in seen} == {threading.get_ident()}
    assert (model.inputs, model.metadata) == (mlp.inputs, mlp.metadata)


def test_bound_calls_are_recorded(mlp):
    trace = aoti.Trace()
    x, y = X.copy(), np.empty((1, 1), np.float32)
    bound = trace.watch(mlp, "mlp").bind(x, out=y)
    assert trace.records == []
    x[:] = 2
    assert bound() is bound()
    assert np.array_equal(y, mlp(x))
    assert [(r.name, r.method, r.error) for r in trace.records] == [("mlp", "bound", None)] * 2
    assert type(mlp.bind(x)) is not type(bound)  # nothing stands between, where nobody watches
    with pytest.raises(aoti.InputError):
        trace.watch(mlp).bind(x[:, :3])
    mlp.close()
    with pytest.raises(aoti.ModelClosedError):
        bound()
    assert [record.error for record in trace.records[2:]] == ["ModelClosedError"]
    with pytest.raises(AttributeError):
        trace.watch(FakeModel(lambda x: x)).bind(x)


def test_a_trace_shows_threads_spans_and_what_overlaps(tmp_path):
    trace = aoti.Trace()
    model = trace.watch(FakeModel(lambda x: x), name="fake")

    def work():
        with trace.span("request"):
            model(1)

    thread = threading.Thread(target=work, name="server")
    thread.start()
    thread.join()
    model.submit(2)
    trace.save(tmp_path / "trace.json")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    threads = {e["args"]["name"]: e["tid"] for e in events if e["ph"] == "M"}
    assert set(threads) == {"server", threading.current_thread().name}
    call, request = (e for e in events if e["ph"] == "X")
    assert (call["name"], call["cat"], request["name"]) == ("fake", "call", "request")
    assert call["tid"] == request["tid"] == threads["server"]
    assert request["ts"] <= call["ts"]
    assert call["ts"] + call["dur"] <= request["ts"] + request["dur"]
    begin, end = (e for e in events if e["ph"] in "be")
    assert begin["id"] == end["id"]
    assert begin["ts"] <= end["ts"]


def test_errors_end_their_records():
    def fail(x):
        raise KeyError(x)

    trace = aoti.Trace()
    model = trace.watch(FakeModel(fail))
    assert isinstance(model.submit(1).exception(), KeyError)
    with pytest.raises(KeyError), trace.span("s"):
        model.run([1])
    with model:
        pass
    with pytest.raises(aoti.ModelClosedError):
        model.submit(1)
    assert [(r.method, r.error) for r in trace.records] == [
        ("submit", "KeyError"), ("run", "KeyError"), ("span", "KeyError"),
        ("submit", "ModelClosedError"),
    ]  # fmt: skip


def test_the_oldest_records_go_first():
    trace = aoti.Trace(limit=2)
    for name in "abc":
        with trace.span(name):
            pass
    assert [record.name for record in trace.records] == ["b", "c"]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        aoti.Trace().save(tmp_path / "none/trace.json")
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        aoti.Trace().save(tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
