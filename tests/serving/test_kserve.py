"""`aoti serve`, as clients see it that nobody here wrote."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import numpy as np
import pytest

import aoti

NAMES = {"float32": "FP32", "int64": "INT64", "float16": "FP16", "bfloat16": "BF16"}


@pytest.fixture(scope="module")
def server(serve, batch_packages, tmp_path_factory):
    log = tmp_path_factory.mktemp("serve") / "log"
    models = batch_packages / "tagged.pt2", batch_packages / "wide.pt2"
    halves = f"small={batch_packages}/halves.pt2"
    with serve(batch_packages, log, *models, halves, "--batch", 32, "--max-delay", 0.05) as made:
        yield made


@pytest.fixture(params=["http", "grpc"])
def client(request, server, clients):
    """A client and its module."""
    module = clients[request.param]
    with module.InferenceServerClient(f"127.0.0.1:{server.ports[request.param]}") as made:
        yield made, module


def ask(client, model, outputs=(), **arrays):
    made, module = client
    inputs = []
    for name, array in arrays.items():
        inputs.append(module.InferInput(name, array.shape, NAMES[array.dtype.name]))
        inputs[-1].set_data_from_numpy(array)
    wanted = [module.InferRequestedOutput(name) for name in outputs] or None
    return made.infer(model, inputs, outputs=wanted)


X = np.arange(6, dtype=np.float32).reshape(2, 3)
TAGGED = {"x": X, "ids": np.array([1, 2]), "scale": np.ones(3, np.float32)}


def test_answers_are_those_of_the_model(client, batch_packages):
    with aoti.load(batch_packages / "tagged.pt2") as model:
        wanted = model(**TAGGED)
    answer = ask(client, "tagged", **TAGGED)
    for name, want in wanted.items():
        assert answer.as_numpy(name).tolist() == want.tolist()
    answer = ask(client, "tagged", ["sums"], **TAGGED)
    assert answer.as_numpy("sums").tolist() == wanted["sums"].tolist()
    assert answer.as_numpy("scaled") is None


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_answers_in_json_are_those_of_the_model(server, batch_packages, kind):
    """The second kind is what curl says of all that it sends."""
    status, body, _ = server.infer("tagged", {"Content-Type": kind}, **TAGGED)
    assert status == 200
    outputs = {output["name"]: output for output in json.loads(body)["outputs"]}
    assert outputs["scaled"]["shape"] == [2, 3]
    assert outputs["scaled"]["data"] == (X + TAGGED["ids"][:, None]).ravel().tolist()


def test_metadata_is_the_signature(client):
    made, _ = client
    metadata = made.get_model_metadata("tagged")
    if not isinstance(metadata, dict):
        tensors = [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs]
    else:
        tensors = [(t["name"], t["datatype"], t["shape"]) for t in metadata["inputs"]]
    assert tensors == [
        ("x", "FP32", [-1, 3]), ("ids", "INT64", [-1]), ("scale", "FP32", [3])
    ]  # fmt: skip
    assert made.is_server_live() and made.is_server_ready() and made.is_model_ready("wide")


@pytest.fixture
def small(server):
    """Inputs for the model `small` by its metadata, and the names of its outputs."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kinds = {"FP16": np.float16, "BF16": ml_dtypes.bfloat16}
    metadata = json.loads(server.get("/v2/models/small")[1])
    inputs = {spec["name"]: X.astype(kinds[spec["datatype"]]) for spec in metadata["inputs"]}
    assert len(inputs) == 2
    return inputs, [spec["name"] for spec in metadata["outputs"]]


def test_small_floats_pass_in_binary(server, clients, small):
    inputs, outputs = small
    with clients["http"].InferenceServerClient(f"127.0.0.1:{server.ports['http']}") as made:
        answer = ask((made, clients["http"]), "small", **inputs)
    for name in outputs:
        assert answer.as_numpy(name).tolist() == (X * 3).tolist()


def test_what_the_server_of_grpc_cannot_do(server, clients, small):
    """That is up to KServe. If a later one can, the documentation has to change."""
    module = clients["grpc"]
    refused = sys.modules["tritonclient.utils"].InferenceServerException
    with module.InferenceServerClient(f"127.0.0.1:{server.ports['grpc']}") as made:
        with pytest.raises(refused, match="invalid content type"):
            ask((made, module), "small", **small[0])
        with pytest.raises(refused):
            made.load_model("lookup")
        with pytest.raises(refused):
            made.unload_model("lookup")


def test_a_bad_request_gets_the_message_of_the_model(server, client):
    refused = sys.modules["tritonclient.utils"].InferenceServerException
    for arrays, message in (
        ({**TAGGED, "scale": np.ones(4, np.float32)}, "dimension 0 must be 3, not 4"),
        ({"x": X}, "the request has the inputs x; the model takes x, ids, scale"),
        ({**TAGGED, "ids": np.ones(2, np.float32)}, "expected int64"),
    ):
        with pytest.raises(refused, match=message):
            ask(client, "tagged", **arrays)
        assert server.infer("tagged", **arrays)[0] == 400
    with pytest.raises(refused):
        ask(client, "none", **TAGGED)


def test_what_cannot_be_read_is_refused(server):
    path = "/v2/models/wide/infer"
    binary = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "9999"}
    assert server.get(path, {"inputs": 3})[0] == 400
    assert server.get(path, {"inputs": [{"name": "input"}]}, binary)[0] == 400
    tensor = {"name": "input", "shape": [1, 4], "datatype": "FP32",
              "parameters": {"binary_data_size": 16}}  # fmt: skip
    length = len(json.dumps({"inputs": [tensor]}))
    binary["Inference-Header-Content-Length"] = str(length)
    status, body, _ = server.get(path, {"inputs": [tensor]}, binary)
    for document in (
        {"inputs": [{**tensor, "shape": "ab"}]},
        {"inputs": [{**tensor, "name": 3}]},
        {"inputs": [{**tensor, "parameters": [16]}]},
        {"inputs": [{**tensor, "parameters": {"binary_data_size": -1}}]},
        {"inputs": [3]},
        {"inputs": [], "id": 3},
        [],
    ):
        size = {**binary, "Inference-Header-Content-Length": str(len(json.dumps(document)))}
        assert server.get(path, document, size)[0] == 400, document
    assert (status, "the binary data are too short" in body) == (400, True)
    assert server.get("/v2/models/none/infer", {"inputs": []})[0] == 404
    wrong = {"inputs": [], "outputs": [{"name": "none"}]}
    assert server.get(path, wrong)[0] == 400


def test_waiting_requests_are_joined_and_counted(server):
    calls, runs = (server.metric(f"aoti_{name}_total", "wide") for name in ("calls", "runs"))
    x = np.ones((1, 4), np.float32)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: server.infer("wide", input=x * n), range(32)))
    assert {status for status, *_ in answers} == {200}
    made = server.metric("aoti_runs_total", "wide") - runs
    text = server.get("/metrics")[1]
    buckets = re.findall(r'^aoti_run_calls_bucket{le="(.*)",model="wide"} (.*)$', text, re.M)
    assert [le for le, _ in buckets] == [*(str(2.0**n) for n in range(11)), "+Inf"]
    counts = [float(count) for _, count in buckets]
    assert counts == sorted(counts) and counts[0] < counts[-1] == made + runs
    assert server.metric("aoti_run_calls_sum", "wide") == calls + 32
    assert server.metric("aoti_run_calls_count", "wide") == made + runs
    assert server.metric("aoti_calls_total", "wide") == calls + 32
    assert 1 <= made <= 24
    assert server.metric("aoti_calls_waiting", "wide") == 0
    assert server.metric("aoti_weights_version", "wide") == 1


def test_models_are_loaded_and_unloaded_by_name(server):
    index = np.array([3])
    assert server.infer("lookup", input=index)[0] == 404
    assert server.get("/v2/repository/models/lookup/load", {})[0] == 200
    assert server.infer("lookup", input=index)[0] == 200
    assert server.infer("lookup", input=np.array([99]))[0] == 400
    assert server.get("/v2/repository/models/lookup/load", {})[0] == 200  # again
    assert server.infer("lookup", input=index)[0] == 200
    assert server.get("/v2/repository/models/lookup/unload", {})[0] == 200
    assert server.infer("lookup", input=index)[0] == 404
    assert server.get("/v2/repository/models/lookup/unload", {})[0] == 404
    status, body, _ = server.get("/v2/repository/models/none/load", {})
    assert (status, "no model of that name" in body) == (503, True)
    assert server.get("/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pt2"], "no package at none.pt2"),
        (["wide.pt2", "--queue-size", "0"], "queue_size must be at least 1"),
        (["mixing.pt2", "wide.pt2", "--batch", "300"], "accepts at most 256 rows, not 300"),
    ],
)
def test_what_cannot_be_served_ends_the_command(serve, batch_packages, arguments, message):
    """In a process of its own: server and client define the same messages of gRPC."""
    command = [sys.executable, "-m", "aoti", "serve", *arguments]
    done = subprocess.run(command, cwd=batch_packages, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_overload_is_said_at_once_and_passes(serve, batch_packages, tmp_path):
    options = ["--queue-size", 1, "--timeout", 5]
    x = np.ones((256, 4), np.float32)
    with serve(batch_packages, tmp_path / "log", batch_packages / "wide.pt2", *options) as server:
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: server.infer("wide", input=x), range(48)))
        full = [answer for answer in answers if answer[0] == 503]
        assert {status for status, *_ in answers} == {200, 503}
        assert "runs are waiting already" in full[0][1]
        assert full[0][2]["Retry-After"] == "1"
        assert server.infer("wide", input=x)[0] == 200


def test_a_refused_request_is_a_line_of_the_log(serve, batch_packages, tmp_path):
    log = tmp_path / "log"
    with serve(batch_packages, log, batch_packages / "wide.pt2") as server:
        before = len(log.read_text().splitlines())
        assert server.infer("wide", input=np.ones((1, 3), np.float32))[0] == 400
        assert server.infer("absent", input=np.ones((1, 4), np.float32))[0] == 404
        assert server.infer("a%0Ab", input=np.ones((1, 4), np.float32))[0] == 404
        assert server.get("/v2/models/wide")[0] == 200
        lines = log.read_text().splitlines()[before:]
        lines = [line for line in lines if "uvicorn.access" not in line]
        assert len(lines) == 3, lines
        assert "POST /v2/models/wide/infer: 400, " in lines[0]
        assert "dimension 1 must be 4, not 3" in lines[0]
        assert "POST /v2/models/absent/infer: 404, " in lines[1]
        assert r"a\nb" in lines[2]


def test_a_timeout_is_504(serve, batch_packages, tmp_path):
    options = ["--batch", 32, "--max-delay", 0.5, "--timeout", 0.1]
    with serve(batch_packages, tmp_path / "log", batch_packages / "wide.pt2", *options) as server:
        status, body, _ = server.infer("wide", input=np.ones((1, 4), np.float32))
        assert (status, "the run took more than 0.1 s" in body) == (504, True)


def test_a_signal_waits_for_answers(serve, batch_packages, clients, tmp_path):
    options = ["--batch", 32, "--max-delay", 0.5]
    x = np.ones((1, 4), np.float32)
    with serve(batch_packages, tmp_path / "log", batch_packages / "wide.pt2", *options) as server:
        client = clients["grpc"].InferenceServerClient(f"127.0.0.1:{server.ports['grpc']}")
        with client, ThreadPoolExecutor(4) as pool:
            rest = [pool.submit(server.infer, "wide", input=x) for _ in range(2)]
            grpc = [pool.submit(ask, (client, clients["grpc"]), "wide", input=x) for _ in range(2)]
            while server.metric("aoti_calls_waiting", "wide") < 4:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            assert [answer.result()[0] for answer in rest] == [200] * 2
            assert {answer.result().get_response().model_name for answer in grpc} == {"wide"}


def test_idle_connections_are_closed_in_time(serve, batch_packages, tmp_path):
    arguments = batch_packages / "wide.pt2", "--keep-alive", 1
    with (
        serve(batch_packages, tmp_path / "log", *arguments) as server,
        closing(HTTPConnection("127.0.0.1", server.ports["http"], timeout=30)) as connection,
    ):
        for wait in (0.5, 0):
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().read() == b'{"live":true}'
            time.sleep(wait)
        start = time.monotonic()
        assert connection.sock.recv(1) == b""
        assert 0.9 < time.monotonic() - start < 20
