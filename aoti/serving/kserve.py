"""Models behind KServe's server, which speaks the Open Inference Protocol by REST and gRPC."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from grpc_interceptor.exceptions import DeadlineExceeded, GrpcException, Unavailable

from aoti import registry
from aoti.config import Config
from aoti.errors import AotiError, InputError
from aoti.loading import load
from aoti.model import AOTIModel
from aoti.package.package import Package, Source
from aoti.serving.light_kserve import kserve
from aoti.serving.statuses import status_of
from aoti.serving.tensors import decoded, described, numbers

_DRAIN = 30.0  # seconds that requests of a model that is unloaded may take

InvalidInput = kserve.errors.InvalidInput
messages = kserve.protocol.grpc.grpc_predict_v2_pb2

# gRPC's errors by HTTP's statuses.
_GRPC: dict[int, type[GrpcException]] = {503: Unavailable, 504: DeadlineExceeded}


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
    version : str
        The version of the loaded model: the first digits of its package's SHA-256.
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
            self._loaded = self._found()  # before: the package may be replaced at any time
            model = load(self._source, **self._options)
            try:
                self._inputs = described(model.inputs or ())
                self._outputs = described(model.outputs or ())
            except BaseException:
                model.close()
                raise
            self.version = model.info().sha256[:12]
            self.model, self.ready = model, True
        return bool(self.ready)

    def _found(self) -> tuple[object, ...]:
        """What identifies the package, and the options that its description adds."""
        source = self._source
        if isinstance(source, Config):
            source = source.model or ""
        registered = registry.resolve(source)
        path = source if registered is None else registered.path
        with Package(path) as package:
            content = package.identity or package.digest
        return path, content, registered and registered.options

    def outdated(self) -> bool:
        """Whether the package was replaced since it was loaded.

        Raises
        ------
        AotiError, OSError
            The package was removed, or cannot be read.
        """
        return self._found() != self._loaded

    def made_as(self, other: AOTIServedModel) -> bool:
        """Whether it is loaded from the same source with the same options as another."""
        return (self._source, self._options) == (other._source, other._options)

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
            result = await self.model.infer_async(self._arrays(payload))
        except InputError as error:
            raise InvalidInput(str(error)) from error
        except AotiError as error:
            if payload.from_grpc and (kind := _GRPC.get(status_of(error))):
                raise kind(str(error)) from error
            raise
        return Response(payload, self, result.outputs, result.version)

    def _arrays(self, request: Any) -> list[Any]:
        """The inputs of a run, in their order."""
        given = {tensor.name: tensor for tensor in request.inputs}
        wanted = [spec["name"] for spec in self._inputs]
        if len(given) != len(request.inputs) or given.keys() != set(wanted):
            names = ", ".join(tensor.name for tensor in request.inputs) or "none"
            raise InputError(f"the request has the inputs {names:.500}; the model takes "
                             f"{', '.join(wanted) or 'none'}")  # fmt: skip
        return [
            decoded(t.name, t.datatype, t.shape, t.data, t._raw_data)
            for t in map(given.__getitem__, wanted)
        ]


class Response(kserve.InferResponse):  # type: ignore[misc]
    """An answer whose arrays go to the wire as they are.

    KServe's own does not know BF16, and converts binary data to lists.

    Parameters
    ----------
    request : kserve.InferRequest
        What is answered.
    served : AOTIServedModel
        The model that answers.
    arrays : sequence of numpy.ndarray
        Its outputs.
    weights_version : int
        The version of the weights that it ran with.
    """

    def __init__(
        self, request: Any, served: AOTIServedModel, arrays: Sequence[Any], weights_version: int
    ) -> None:
        super().__init__(
            request.id or str(uuid.uuid4()),
            served.name,
            [],
            model_version=served.version,
            from_grpc=request.from_grpc,
            parameters={"weights_version": weights_version},
        )
        specs = served.get_output_types()
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
        answer = {
            "id": self.id,
            "model_name": self.model_name,
            "model_version": self.model_version,
            "parameters": self.parameters,
            "outputs": outputs,
        }
        if not raw:
            return answer, None
        header = orjson.dumps(answer)
        return b"".join([header, *raw]), len(header)

    def to_grpc(self) -> Any:
        """The answer for gRPC."""
        return messages.ModelInferResponse(
            id=self.id,
            model_name=self.model_name,
            model_version=self.model_version,
            parameters={
                name: messages.InferParameter(int64_param=value)
                for name, value in self.parameters.items()
            },
            outputs=[{**spec, "shape": array.shape} for spec, array, _ in self._tensors],
            raw_output_contents=[array.tobytes() for _, array, _ in self._tensors],
        )
