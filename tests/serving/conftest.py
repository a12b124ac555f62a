"""A server process, as clients see it that nobody here wrote."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

COMMAND = [sys.executable, "-c", "from aoti.cli.group import main; main()", "serve"]
NAMES = {"float32": "FP32", "int64": "INT64", "float16": "FP16", "bfloat16": "BF16"}


def pytest_collection_modifyitems(items):
    missing = not (find_spec("kserve") and find_spec("tritonclient"))
    reason = (
        "needs a server and a client with 60 packages of their own: pip install "
        "'aoti-runtime[serve]' 'tritonclient[http,grpc]'"
    )
    for item in items:
        if "serve" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skipif(missing, reason=reason))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def clients():
    """The client library, by protocol."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tritonclient.grpc
        import tritonclient.http
    return {"http": tritonclient.http, "grpc": tritonclient.grpc}


class Served:
    """A server process."""

    def __init__(self, process, http, grpc):
        self.process, self.ports = process, {"http": http, "grpc": grpc}

    def get(self, path, document=None, headers=None):
        """Status, body and headers of an answer by REST."""
        data = None if document is None else json.dumps(document).encode()
        url = f"http://127.0.0.1:{self.ports['http']}{path}"
        headers = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(url, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def infer(self, model, headers=None, **arrays):
        inputs = [
            {"name": n, "shape": a.shape, "datatype": NAMES[a.dtype.name], "data": a.tolist()}
            for n, a in arrays.items()
        ]
        return self.get(f"/v2/models/{model}/infer", {"inputs": inputs}, headers)

    def metric(self, name, model):
        text = self.get("/metrics")[1]
        return float(re.search(rf'^{name}{{model="{model}"}} (.*)$', text, re.MULTILINE)[1])


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(packages, log, *arguments, meanwhile=None):
    http, grpc = free_port(), free_port()
    ports = ["--http-port", str(http), "--grpc-port", str(grpc)]
    environment = {**os.environ, "AOTI_MODELS_DIR": str(packages), "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments), *ports], env=environment, stdout=file, stderr=file
        )
    served = Served(process, http, grpc)
    try:
        if meanwhile is not None:
            meanwhile(process)
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            try:
                if served.get("/v2/health/ready")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield served
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


@pytest.fixture(scope="session")
def serve():
    """``serve(models_directory, log, *arguments)``: a context with a server process.

    ``meanwhile(process)`` is called before the server is ready.
    """
    return serving
