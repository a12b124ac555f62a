"""Models and weights that change while `aoti serve` answers requests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import aoti

X = np.ones((1, 3), np.float32)


@pytest.fixture
def models(batch_packages, tmp_path):
    """A directory with the model `weighted`, and weights for it: version N has the value N."""
    safetensors = pytest.importorskip("safetensors.numpy")
    shutil.copy(batch_packages / "weighted.pt2", tmp_path)
    for n in range(2, 5):
        weights = {"weight": np.full(3, n, np.float32)}
        safetensors.save_file(weights, tmp_path / f"step-{n}.safetensors")
    return tmp_path


@pytest.fixture
def server(serve, models):
    with serve(models, models / "log", models / "weighted.pt2", "--batch", 8) as made:
        yield made


def version_of(package):
    with aoti.Package(package) as opened:
        return opened.digest[:12]


def versions(server, x=X):
    """The first number of an answer, and the versions of what made it."""
    status, body, _ = server.infer("weighted", x=x)
    assert status == 200, body
    answer = json.loads(body)
    (output,) = answer["outputs"]
    return output["data"][0], answer["model_version"], answer["parameters"]["weights_version"]


def load(server, name="weighted", **parameters):
    return server.get(f"/v2/repository/models/{name}/load", {"parameters": parameters})


def until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def requests_under_way(server, clients=6):
    """Clients that ask all the time; what they got."""
    answers, failures, over = [], [], threading.Event()

    def ask():
        try:
            while not over.is_set():
                answers.append(versions(server))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(answers) > clients)
        yield answers
        before = len(answers)
        until(lambda: len(answers) > before + 2 * clients)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_answer_names_the_versions_that_made_it(server, clients, models, protocol):
    module = clients[protocol]
    with module.InferenceServerClient(f"127.0.0.1:{server.ports[protocol]}") as client:
        tensor = module.InferInput("x", X.shape, "FP32")
        tensor.set_data_from_numpy(X)
        for n in (1, 2):
            answer = client.infer("weighted", [tensor]).get_response()
            if protocol == "http":
                found = answer["model_version"], answer["parameters"]["weights_version"]
            else:
                number = answer.parameters["weights_version"].int64_param
                found = answer.model_version, number
            assert found == (version_of(models / "weighted.pt2"), n)
            assert load(server, weights="step-2.safetensors")[0] == 200
        metadata = client.get_model_metadata("weighted")
    if protocol == "http":
        assert metadata["versions"] == [version_of(models / "weighted.pt2")]


def test_weights_change_under_traffic(server):
    with requests_under_way(server) as answers:
        for n in range(2, 5):
            status, body, _ = load(server, weights=f"step-{n}.safetensors")
            assert (status, json.loads(body)["parameters"]) == (200, {"weights_version": n})
            assert versions(server)[::2] == (n, n)
    assert {(value, number) for value, _, number in answers} <= {(n, n) for n in range(1, 5)}
    assert server.metric("aoti_weights_version", "weighted") == 4


def test_packages_change_under_traffic(server, models, batch_packages):
    """Weights that were put into the old package go with it."""
    old, new = version_of(models / "weighted.pt2"), version_of(batch_packages / "other.pt2")
    load(server, weights="step-2.safetensors")
    with requests_under_way(server) as answers:
        server.process.send_signal(signal.SIGHUP)  # nothing has changed
        shutil.copy(batch_packages / "other.pt2", models / "new")
        (models / "new").rename(models / "weighted.pt2")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: answers[-1] == (10, new, 1))
        shutil.copy(batch_packages / "weighted.pt2", models / "weighted.pt2")
        assert load(server)[0] == 200
    assert set(answers) == {(2, old, 2), (10, new, 1), (1, old, 1)}


def test_a_package_that_cannot_be_loaded_changes_nothing(server, models):
    (models / "new").write_bytes(b"none")
    (models / "new").rename(models / "weighted.pt2")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "model weighted is not loaded again" in (models / "log").read_text())
    assert load(server)[0] == 503
    assert versions(server)[0] == 1


def test_weights_that_cannot_be_used_change_nothing(server, models):
    (models / "log.safetensors").write_bytes(b"none")
    outside, what = "not the path of a .safetensors file in AOTI", "the parameters of a load can be"
    for document, message in (
        ({"weights": "../step-2.safetensors"}, outside),
        ({"weights": "/step-2.safetensors"}, outside),
        ({"weights": "weighted.pt2"}, outside),
        ({"weights": "none.safetensors"}, "none.safetensors"),
        ({"weights": "log.safetensors"}, "log.safetensors"),
        ({"weights": 3}, what),
        ({"config": "{}"}, what),
        ([3], "the request cannot be read"),
    ):
        status, text, _ = server.get(
            "/v2/repository/models/weighted/load", {"parameters": document}
        )
        assert (status, message in text) == (400, True), (document, text)
    assert server.get("/v2/repository/models/weighted/load", [])[0] == 400
    assert load(server, "none", weights="step-2.safetensors")[0] == 404
    assert versions(server)[::2] == (1, 1)


def test_a_configuration_is_read_again(serve, models):
    config = models / "aoti.toml"
    config.write_text("[batching]\nmax_delay = 0.5\n")
    with serve(models, models / "log", models / "weighted.pt2", "--config", config) as server:
        assert versions(server)[0] == 1
        config.write_text("timeout = 0.1\n[batching]\nmax_delay = 0.5\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.infer("weighted", x=X)[0] == 504)
        config.write_text("timeout = 'soon'\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "timeout must be a number" in (models / "log").read_text())
        assert server.infer("weighted", x=X)[0] == 504


def test_a_signal_before_the_server_is_ready_is_not_lost(serve, models):
    """The settings come from pipes: one for the start, and one for the signal."""
    config, second = models / "aoti.toml", models / "second"
    os.mkfifo(config)
    os.mkfifo(second)

    def starts(process):
        with config.open("w") as settings:  # waits until the server reads
            process.send_signal(signal.SIGHUP)
            second.rename(config)
            settings.write("[batching]\nmax_delay = 0.5\n")
        again.start()

    def reads_again():
        config.write_text("timeout = 0.1\n[batching]\nmax_delay = 0.5\n")

    again = threading.Thread(target=reads_again, daemon=True)
    models_and_settings = models / "weighted.pt2", "--config", config
    with serve(models, models / "log", *models_and_settings, meanwhile=starts) as server:
        until(lambda: server.infer("weighted", x=X)[0] == 504)
        again.join()
