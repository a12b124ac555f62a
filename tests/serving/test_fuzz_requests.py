"""Requests that are wrong in some way: each is refused, and the server goes on."""

from __future__ import annotations

import http.client
import json
import random
from contextlib import closing

import numpy as np
import pytest

REQUESTS = 400
HUGE = [2**31, 2**62, 2**63, 2**64, 10**30, -1, -(2**63), 1e308, 0.5]
ODD = [None, True, "", "x", "1", [], [1], {}, {"a": 1}, *HUGE]


@pytest.fixture(scope="module")
def server(serve, batch_packages, tmp_path_factory):
    log = tmp_path_factory.mktemp("serve") / "log"
    with serve(batch_packages, log, batch_packages / "tagged.pt2", "--batch", 8) as made:
        yield made


def request():
    """The JSON and the binary data of a good request."""
    arrays = {
        "x": ("FP32", np.ones((2, 3), np.float32)),
        "ids": ("INT64", np.arange(2)),
        "scale": ("FP32", np.ones(3, np.float32)),
    }
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": datatype,
         "parameters": {"binary_data_size": array.nbytes}}
        for name, (datatype, array) in arrays.items()
    ]  # fmt: skip
    return {"inputs": tensors}, b"".join(array.tobytes() for _, array in arrays.values())


def break_document(rng, document):
    """Change something in the JSON of a request."""
    tensor = rng.choice(document["inputs"])
    match rng.randrange(12):
        case 0:
            tensor["parameters"]["binary_data_size"] = rng.choice([*ODD, 0, 1, 23, 25, 10**6])
        case 1:
            tensor["shape"] = [rng.choice([*HUGE, 0, 1, 2, 3]) for _ in range(rng.randrange(5))]
        case 2:
            tensor["shape"][rng.randrange(len(tensor["shape"]))] = rng.choice(ODD)
        case 3:
            tensor["datatype"] = rng.choice(["FP16", "FP64", "BF16", "INT8", "BYTES", "BOOL", "é"])
        case 4:
            tensor["name"] = rng.choice(["ids", "x", "scale", "", "y" * 10_000, "\x00"])
        case 5:
            del tensor[rng.choice(sorted(tensor))]
        case 6:
            tensor[rng.choice(["name", "shape", "datatype", "parameters", "data"])] = rng.choice(
                ODD
            )
        case 7:
            document["inputs"].append(dict(tensor))
        case 8:
            document["inputs"].remove(tensor)
        case 9:
            document[rng.choice(["inputs", "id", "parameters"])] = rng.choice(ODD)
        case 10:
            document["outputs"] = rng.choice([*ODD, [{"name": 1}], [{"name": "none"}], [{}], [3]])
        case 11:
            tensor["data"] = rng.choice([*ODD, [[1], [2, 3]], ["a"], [None], [1e400], [[[[]]]]])


def break_bytes(rng, head, data):
    """Change the bytes of a request, or the length that its header gives for the JSON."""
    length = str(len(head))
    match rng.randrange(7):
        case 0:
            data = data[: rng.randrange(len(data))]
        case 1:
            data += bytes(rng.randrange(1, 64))
        case 2:
            length = str(len(head) + rng.choice([-1, 1, -20, 20, 10**6]))
        case 3:
            length = rng.choice(["-1", "0", "x", "1e3", "", " 7", "9" * 400, "9" * 5000, "0x10"])
        case 4:
            head = head[: rng.randrange(len(head))]
        case 5:
            place = rng.randrange(len(head))
            head = head[:place] + rng.randbytes(rng.randrange(1, 4)) + head[place:]
        case 6:
            head, data = b"[" * rng.choice([1, 10, 10_000]), b""
    return head, data, length


def test_broken_requests_in_json(server):
    rng = random.Random(0)
    with closing(http.client.HTTPConnection("127.0.0.1", server.ports["http"])) as client:

        def post(head):
            headers = {"Content-Type": "application/json"}
            client.request("POST", "/v2/models/tagged/infer", head, headers)
            answer = client.getresponse()
            return answer.status, answer.read()

        def good():
            document, _ = request()
            for tensor, data in zip(document["inputs"], ([1.5] * 6, [0, 1], [1] * 3), strict=True):
                tensor["data"], tensor["parameters"] = data, {}
            return document

        assert post(json.dumps(good()))[0] == 200
        for n in range(REQUESTS):
            document = good()
            break_document(rng, document)
            head = json.dumps(document).encode()
            if n % 4 == 0:
                head, _, _ = break_bytes(rng, head, bytes(1))
            status, body = post(head)
            assert status in (200, 400), (status, body[:500], head)
        assert post(json.dumps(good()))[0] == 200


@pytest.mark.parametrize("seed", range(2))
def test_broken_requests_by_rest(server, seed):
    rng = random.Random(seed)
    good, data = request()
    with closing(http.client.HTTPConnection("127.0.0.1", server.ports["http"])) as client:

        def post(head, data, length):
            headers = {"Content-Type": "application/octet-stream",
                       "Inference-Header-Content-Length": length}  # fmt: skip
            client.request("POST", "/v2/models/tagged/infer", head + data, headers)
            answer = client.getresponse()
            return answer.status, answer.read()

        head = json.dumps(good).encode()
        assert post(head, data, str(len(head)))[0] == 200
        refused = 0
        for _ in range(REQUESTS):
            document, data = request()
            if rng.random() < 0.7:
                break_document(rng, document)
                head = json.dumps(document).encode()
                sent = head, data, str(len(head))
            else:
                sent = break_bytes(rng, json.dumps(document).encode(), data)
            status, body = post(*sent)
            assert status in (200, 400), (status, body[:500], sent)
            refused += status != 200
        assert refused > REQUESTS * 0.8
        head, data = json.dumps(good).encode(), request()[1]
        assert post(head, data, str(len(head)))[0] == 200
        assert post(head, data + b"x", str(len(head)))[0] == 400
        assert post(head, data, str(-len(data)))[0] == 400


def break_message(rng, message):
    """Change something in a request by gRPC."""
    place = rng.randrange(3)
    tensor = message.inputs[place]
    match rng.randrange(8):
        case 0:
            raw = message.raw_input_contents[place]
            message.raw_input_contents[place] = raw[: rng.randrange(len(raw))]
        case 1:
            message.raw_input_contents[place] += bytes(rng.randrange(1, 64))
        case 2:
            tensor.shape[:] = [rng.choice([-1, 0, 1, 2**62, 2**63 - 1]) for _ in range(3)]
        case 3:
            tensor.datatype = rng.choice(["FP16", "FP64", "INT8", "BOOL", "BYTES", "", "é"])
        case 4:
            tensor.name = rng.choice(["ids", "x", "scale", "", "y" * 10_000])
        case 5:
            del message.raw_input_contents[place]
        case 6:
            del message.inputs[place]
        case 7:
            message.outputs.add(name="none")


def test_broken_requests_by_grpc(server, clients):
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

    rng, (document, _) = random.Random(0), request()
    tensors = [
        {name: tensor[name] for name in ("name", "shape", "datatype")}
        for tensor in document["inputs"]
    ]
    raw = [np.ones(6, np.float32).tobytes(), np.arange(2).tobytes(), bytes(12)]

    def good():
        return messages.ModelInferRequest(
            model_name="tagged", inputs=tensors, raw_input_contents=raw
        )

    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.ModelInfer(good())
        codes = set()
        for _ in range(REQUESTS // 2):
            message = good()
            break_message(rng, message)
            try:
                stub.ModelInfer(message)
            except grpc.RpcError as error:
                codes.add(error.code())
        assert codes == {grpc.StatusCode.INVALID_ARGUMENT}
        stub.ModelInfer(good())
