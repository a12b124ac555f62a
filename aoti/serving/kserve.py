"""Models behind KServe's server, which speaks the Open Inference Protocol by REST and gRPC."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe parses the arguments of the process
    import kserve
    from kserve import model_server
import orjson
from fastapi.responses import JSONResponse
from grpc_interceptor.exceptions import DeadlineExceeded, GrpcException, Unavailable
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from aoti import registry
from aoti.config import Config
from aoti.errors import (
    AotiError,
    InputError,
    ModelClosedError,
    QueueFullError,
    RunTimeoutError,
)
from aoti.loading import load
from aoti.model import AOTIModel
from aoti.package.package import Source
from aoti.serving.tensors import decoded, described, numbers
from aoti.signature.spec import ConstantSpec, TensorSpec

_RETRY_AFTER = "1"  # seconds
_DRAIN = 30.0  # seconds that requests of a model that is unloaded may take

# What a request gets for an error of the model: HTTP's status, and gRPC's.
_STATUS: dict[type[AotiError], tuple[int, type[GrpcException]]] = {
    QueueFullError: (503, Unavailable),
    ModelClosedError: (503, Unavailable),
    RunTimeoutError: (504, DeadlineExceeded),
}


class AOTIServedModel(kserve.Model):  # type: ignore[misc]
    """A model of aoti for `kserve.ModelServer`.

    Parameters
    ----------
    name : str
        The name that requests use.
    source : path, bytes or Config
        As for `aoti.load`.
    **options
        Options of `aoti.load`. `warmup` is always on: the model is ready after a first run.

    Attributes
    ----------
    model : AOTIModel or None
        The loaded model.
    """

    def __init__(self, name: str, source: Source | Config, **options: Any) -> None:
        super().__init__(name)
        warmup = options.get("warmup") or True  # else nothing says that a first run works
        self._source, self._options = source, {**options, "warmup": warmup, "outputs": "numpy"}
        self.model: AOTIModel | None = None

    def load(self) -> bool:
        """Load the model and run it once, unless that was done before.

        Raises
        ------
        AotiError
            As `aoti.load`.
        ConfigError
            The package does not describe the model, or the protocol lacks one of its datatypes.
        """
        if self.model is None:
            model = load(self._source, **self._options)
            try:
                self._plan = model.signature.plan((model.call_spec[0], model.call_spec[1]))
                self._inputs = described(model.inputs or ())
                self._outputs = described(model.outputs or ())
            except BaseException:
                model.close()
                raise
            self.model, self.ready = model, True
        return bool(self.ready)

    def start(self) -> None:
        """Do nothing: `load` makes it ready."""

    def stop(self) -> None:
        """Take no more requests, and close the model when those that it has are answered."""
        self.ready = False
        if self.model is not None:
            end = time.monotonic() + _DRAIN
            while (info := self.model.info()).running + info.waiting and time.monotonic() < end:
                time.sleep(0.01)
            self.model.close()

    def get_input_types(self) -> list[dict[str, Any]]:
        """The inputs, for the model's metadata."""
        return self._inputs

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs, for the model's metadata."""
        return self._outputs

    async def predict(
        self, payload: Any, _headers: Mapping[str, str] | None = None, _answer: Any = None
    ) -> Response:
        """Answer a request of version 2 of the protocol.

        Raises
        ------
        InvalidInput
            The request is not one that the model takes.
        AotiError
            By REST: as `AOTIModel.run_async`.
        GrpcException
            By gRPC: the same.
        """
        if not isinstance(payload, kserve.InferRequest):
            raise InvalidInput("use version 2 of the protocol: POST /v2/models/NAME/infer")
        assert self.model is not None
        try:
            args, kwargs = self._arguments(self.model, payload)
            result = await self.model.run_async(*args, **kwargs)
        except InputError as error:
            raise InvalidInput(str(error)) from error
        except tuple(_STATUS) as error:
            if payload.from_grpc:
                raise _STATUS[type(error)][1](str(error)) from error
            raise
        leaves = self._plan.flatten_result(result)
        specs = self.model.signature.results or ()
        arrays = [a for a, s in zip(leaves, specs, strict=True) if isinstance(s, TensorSpec)]
        return Response(payload, self.name, self._outputs, arrays)

    def _arguments(self, model: AOTIModel, request: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of a call."""
        given = {tensor.name: tensor for tensor in request.inputs}
        wanted = [spec["name"] for spec in self._inputs]
        if len(given) != len(request.inputs) or given.keys() != set(wanted):
            names = ", ".join(tensor.name for tensor in request.inputs) or "none"
            raise InputError(f"the request has the inputs {names:.500}; the model takes "
                             f"{', '.join(wanted) or 'none'}")  # fmt: skip
        arrays = iter([
            decoded(t.name, t.datatype, t.shape, t.data, t._raw_data)
            for t in map(given.__getitem__, wanted)
        ])  # fmt: skip
        leaves = [
            spec.value if isinstance(spec, ConstantSpec) else next(arrays)
            for spec in model.signature.arguments or ()
        ]
        return self._plan.arguments(leaves)


class Response(kserve.InferResponse):  # type: ignore[misc]
    """An answer whose arrays go to the wire as they are.

    KServe's own does not know BF16, and converts binary data to lists.
    """

    def __init__(
        self, request: Any, name: str, specs: Sequence[Mapping[str, Any]], arrays: Sequence[Any]
    ) -> None:
        super().__init__(request.id or str(uuid.uuid4()), name, [], from_grpc=request.from_grpc)
        known = {spec["name"]: (spec, array) for spec, array in zip(specs, arrays, strict=True)}
        binary = request.use_binary_outputs
        asked = {output.name: output.binary_data for output in request.request_outputs or ()}
        if unknown := [name for name in asked if name not in known]:
            raise InvalidInput(f"the model has no output {unknown[0]!r}; it has {', '.join(known)}")
        self._tensors = [
            (*known[name], binary if choice is None else choice)
            for name, choice in (asked or dict.fromkeys(known)).items()
        ]

    def to_rest(self) -> tuple[bytes | dict[str, Any], int | None]:
        """The answer for REST, and the length of its JSON part if binary data follow it."""
        raw, outputs = [], []
        for spec, array, binary in self._tensors:
            output = {**spec, "shape": list(array.shape)}
            if binary:
                raw.append(array.tobytes())
                output["parameters"] = {"binary_data_size": len(raw[-1])}
            else:
                output["data"] = numbers(array)
            outputs.append(output)
        answer = {"id": self.id, "model_name": self.model_name, "outputs": outputs}
        if not raw:
            return answer, None
        header = orjson.dumps(answer)
        return b"".join([header, *raw]), len(header)

    def to_grpc(self) -> Any:
        """The answer for gRPC."""
        return ModelInferResponse(
            id=self.id,
            model_name=self.model_name,
            outputs=[{**spec, "shape": array.shape} for spec, array, _ in self._tensors],
            raw_output_contents=[array.tobytes() for _, array, _ in self._tensors],
        )


class Requests(DataPlane):  # type: ignore[misc]
    """KServe's way of requests to models, with binary data as they came."""

    async def ready(self) -> bool:
        """Whether there are models, and all of them are ready."""
        models = list(self.model_registry.get_models().values())
        return bool(models) and all(model.ready for model in models)

    def decode_inference_request(self, body: Any, headers: Any, model_name: str) -> Any:
        """A request from JSON, or from JSON that binary data follow."""
        if not isinstance(body, bytes):
            return super().decode_inference_request(body, headers, model_name)
        try:
            # Without the header there are no binary data: curl does not say that it sends JSON.
            start = int(headers.get("inference-header-content-length", len(body)))
            document = orjson.loads(memoryview(body)[:start])
            binary = ["data" not in item for item in document["inputs"]]
            for item in document["inputs"]:
                item.setdefault("data", [])
            request = super().decode_inference_request(
                InferenceRequest.model_validate(document), headers, model_name
            )
            for tensor, raw in zip(request.inputs, binary, strict=True):
                if raw:
                    end = start + int(tensor.parameters["binary_data_size"])
                    if not start <= end <= len(body):
                        raise ValueError("the binary data are too short")
                    tensor._raw_data = memoryview(body)[start:end]
                    start = end
            return request
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"the request cannot be read: {error}") from error


class Repository(kserve.ModelRepository):  # type: ignore[misc]
    """The models of a server; others are found in ``AOTI_MODELS_DIR``.

    Parameters
    ----------
    options : mapping
        Options of `aoti.load` for models that are found there.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self._options = dict(options)
        self.sources: dict[str, Source | Config] = {}  # of the models that were named at the start

    def make(self, name: str) -> AOTIServedModel:
        """A model that is to be loaded.

        Raises
        ------
        PackageNotFoundError, AmbiguousModelError, ConfigError
            As `aoti.registry.find`.
        """
        if name in self.sources:
            return AOTIServedModel(name, self.sources[name], **self._options)
        found = registry.find(name)
        return AOTIServedModel(name, str(found.path), **{**found.options, **self._options})

    async def load(self, name: str) -> None:
        """Load a model, or load it again: the old one answers until the new one is ready."""
        served = self.make(name)
        await asyncio.to_thread(served.load)
        old = self.models.get(name)
        self.update(served)
        if old is not None:
            await asyncio.to_thread(old.stop)

    def unload(self, name: str) -> None:
        """Take a model out. It answers the requests that it has.

        Raises
        ------
        KeyError
            There is no such model.
        """
        served = self.models.pop(name)
        threading.Thread(target=served.stop, name=f"aoti unloads {name}").start()


class Metrics:
    """What the models do, for Prometheus."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def collect(self) -> Iterator[Metric]:
        """The present figures."""
        families = {
            "running": GaugeMetricFamily("aoti_calls_running", "Calls that run", labels=["model"]),
            "waiting": GaugeMetricFamily("aoti_calls_waiting", "Calls that wait", labels=["model"]),
            "calls": CounterMetricFamily("aoti_calls", "Calls that have run", labels=["model"]),
            "runs": CounterMetricFamily("aoti_runs", "Runs that they took", labels=["model"]),
            "run_seconds": CounterMetricFamily(
                "aoti_run_seconds", "Time of these runs", labels=["model"]
            ),
            "weights_version": GaugeMetricFamily(
                "aoti_weights_version", "Version of the weights", labels=["model"]
            ),
        }
        for name, served in list(self._repository.models.items()):
            if isinstance(served, AOTIServedModel) and served.model is not None:
                info = served.model.info()
                for field, family in families.items():
                    family.add_metric([name], getattr(info, field))
        yield from families.values()


class Server(kserve.ModelServer):  # type: ignore[misc]
    """KServe's server with models of aoti.

    Parameters
    ----------
    sources : mapping of str to source of `aoti.load`
        The models by their names.
    options : mapping
        Options of `aoti.load` for all of them.
    **settings
        As for `kserve.ModelServer`: `http_port`, `grpc_port`, `ssl_certfile`, ...
    """

    def __init__(
        self, sources: Mapping[str, Source | Config], options: Mapping[str, Any], **settings: Any
    ) -> None:
        self.repository = Repository(options)
        self.repository.sources.update(sources)
        super().__init__(registered_models=self.repository, **settings)
        self.dataplane = Requests(model_registry=self.repository)
        for error, (status, _) in _STATUS.items():
            model_server.app.add_exception_handler(error, _handler(status))

    def load(self) -> None:
        """Load the models.

        Raises
        ------
        AotiError
            As `AOTIServedModel.load`.
        """
        for name in self.repository.sources:
            served = self.repository.make(name)
            served.load()
            self.repository.update(served)

    def serve(self) -> None:
        """Answer requests until a signal ends the server, and close the models."""
        metrics = Metrics(self.repository)
        REGISTRY.register(metrics)
        try:
            self.start([])
        finally:
            REGISTRY.unregister(metrics)
            for served in self.repository.models.values():
                served.stop()

    def stop(self, sig: int) -> None:
        """End the servers; requests that are under way are answered before the models close."""

        async def shutdown() -> None:
            if self._grpc_server:
                await self._grpc_server.stop(sig)

        self._ending = asyncio.get_event_loop().create_task(shutdown())


def _handler(status: int) -> Any:
    async def handle(_request: Any, error: Exception) -> JSONResponse:
        headers = {"Retry-After": _RETRY_AFTER} if status == 503 else None
        return JSONResponse({"error": str(error)}, status, headers)

    return handle
