"""Answers a second and latencies of servers: with and without joined runs, and of ONNX Runtime.

usage: python serving.py MINILM.pt2 [--onnx MINILM.onnx [--mlserver PYTHON]] [--tokens 8]
       [--text] [--clients 64] [--seconds 10] [--rounds 3] [--json]

Each server is a process, and answers requests by REST with one row of so many tokens, in binary or
with numbers in JSON (--text). The first two are `aoti serve`, and ONNX Runtime is behind the same
server. --mlserver names the Python of an environment with MLServer and ONNX Runtime; MLServer takes
only numbers in JSON, and joins requests itself. The servers take turns. Figures are medians of the
rounds; ms of CPU are those that the server's process takes for an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import tell


def request(client: int, tokens: int, *, text: bool) -> bytes:
    """A whole request for MiniLM: each client has its own tokens."""
    rng = np.random.default_rng(client)
    arrays = {
        "input_ids": rng.integers(1000, 30_000, (1, tokens)),
        "attention_mask": np.ones((1, tokens), np.int64),
    }
    inputs = [
        {"name": name, "shape": a.shape, "datatype": "INT64",
         **({"data": a.tolist()} if text else {"parameters": {"binary_data_size": a.nbytes}})}
        for name, a in arrays.items()
    ]  # fmt: skip
    document = {"inputs": inputs, "parameters": {"binary_data_output": not text}}
    header = body = json.dumps(document).encode()
    kind = "application/json"
    if not text:
        kind = f"application/octet-stream\r\nInference-Header-Content-Length: {len(header)}"
        body = b"".join([header, *(a.tobytes() for a in arrays.values())])
    head = (
        "POST /v2/models/minilm/infer HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answers(port: int, requests: list[bytes], seconds: float) -> list[float]:
    """The seconds that each answer took, of as many clients as there are requests."""
    taken: list[float] = []

    async def client(message: bytes, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (start := time.perf_counter()) < end:
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if " 200 " not in head.partition("\r\n")[0]:
                raise RuntimeError(head)
            if length := head.partition("\ncontent-length: ")[2].partition("\r\n")[0]:
                await reader.readexactly(int(length))
            else:  # chunks
                while size := int(await reader.readline(), 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
            taken.append(time.perf_counter() - start)
        writer.close()

    end = time.perf_counter() + seconds
    await asyncio.gather(*(client(message, end) for message in requests))
    return taken


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server that is ready: its port, and its process."""
    with contextlib.ExitStack() as found:
        sockets = [found.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        http, grpc = (one.getsockname()[1] for one in sockets)
    ports = ["--http-port", str(http), "--grpc-port", str(grpc)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, *ports], env=environment, **quiet) as process:
        try:
            while not _ready(http):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended")
                time.sleep(0.1)
            yield http, process
        finally:
            process.terminate()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/minilm/ready") as answer:
            return answer.status == 200
    except OSError:
        return False


def serve_onnx(path: str, http_port: int, grpc_port: int) -> None:
    """Serve a model by ONNX Runtime behind the same server: one thread, one run at a time."""
    import onnxruntime

    from aoti.serving.light_kserve import kserve

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    one_run = asyncio.Lock()

    class Model(kserve.Model):  # type: ignore[misc]
        async def predict(self, payload: Any, *_: Any) -> Any:
            inputs = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
            async with one_run:
                arrays = await asyncio.to_thread(session.run, None, inputs)
            outputs = []
            for value, array in zip(session.get_outputs(), arrays, strict=True):
                outputs.append(kserve.InferOutput(value.name, list(array.shape), "FP32"))
                outputs[-1].set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            name, binary = payload.id or str(uuid.uuid4()), payload.use_binary_outputs
            return kserve.InferResponse(name, self.name, outputs, use_binary_outputs=binary)

    model = Model("minilm")
    model.ready = True
    kserve.ModelServer(http_port=http_port, grpc_port=grpc_port).start([model])


def compare(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures of all servers."""
    serve = [sys.executable, "-m", "aoti", "serve", f"minilm={arguments.model}", "--queue-size"]
    serve += ["1024", "--num-runners", "1", "--intra-op-threads", "1"]
    commands = {"separate": serve, "joined": [*serve, "--batch", "32"]}
    if arguments.onnx:
        commands["ONNX Runtime"] = [sys.executable, __file__, arguments.onnx, "--serve"]
    if arguments.mlserver:
        server = str(Path(__file__).with_name("onnx_mlserver.py"))
        commands["MLServer, joined"] = [arguments.mlserver, server, arguments.onnx]
    requests = [
        request(client, arguments.tokens, text=arguments.text)
        for client in range(arguments.clients)
    ]
    found: dict[str, list[tuple[float, ...]]] = {}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(c)) for name, c in commands.items()}
        for number in range(arguments.rounds + 1):
            for name, (port, process) in servers.items():
                before = _cpu_seconds(process.pid)
                seconds = arguments.seconds if number else 1.0
                taken = asyncio.run(answers(port, requests, seconds))
                if number:  # the first round is a warm-up
                    cpu = (_cpu_seconds(process.pid) - before) / len(taken)
                    p50, p99 = (statistics.quantiles(taken, n=100)[n] for n in (49, 98))
                    rate = len(taken) / arguments.seconds
                    found.setdefault(name, []).append((rate, p50 * 1e3, p99 * 1e3, cpu * 1e3))
    figures = {}
    for name, rounds in found.items():
        medians = map(statistics.median, zip(*rounds, strict=True))
        for what, figure in zip(
            ("answers/s", "p50, ms", "p99, ms", "ms of CPU"), medians, strict=True
        ):
            figures[f"{name}, {what}"] = figure
    pairs = zip(found["separate"], found["joined"], strict=True)
    figures["joined over separate"] = statistics.median(b[0] / a[0] for a, b in pairs)
    return figures


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--onnx")
    parser.add_argument("--mlserver")
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--http-port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--grpc-port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_onnx(arguments.model, arguments.http_port, arguments.grpc_port)
    elif arguments.mlserver and not (arguments.onnx and arguments.text):
        parser.error("--mlserver needs --onnx and --text")
    else:
        tell(compare(arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
