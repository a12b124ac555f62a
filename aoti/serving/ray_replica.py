"""A replica of a deployment of Ray Serve: one model, called by handle and by HTTP."""

# Without `from __future__ import annotations`: FastAPI has to read those of copied functions.

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson
from fastapi import FastAPI, Request, Response
from ray import serve

from aoti.config import Config
from aoti.errors import AotiError, ConfigError, ModelNotFoundError
from aoti.loading import load, resolve
from aoti.model import AOTIModel
from aoti.package.archive import identity
from aoti.serving.infer_request import InferRequest
from aoti.serving.named_calls import NamedCalls
from aoti.serving.ray import Answer
from aoti.serving.statuses import headers_of, status_of
from aoti.serving.tensors import described
from aoti.signature import example_inputs

_DIGITS = 12  # of a digest, as a version


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model with its versions. A request uses the same one from start to end.

    Attributes
    ----------
    probe : sequence of arrays
        Flat inputs of a run that says whether the model works.
    """

    model: AOTIModel
    calls: NamedCalls
    probe: Sequence[Any]
    model_version: str
    weights_version: str

    @classmethod
    def load(cls, config: Config) -> Self:
        """Load a model and run it once.

        Raises
        ------
        AotiError
            As `aoti.load`.
        ConfigError
            The package does not describe the model, the weights are not a file, or that file was
            changed while it was read.
        """
        _, options = resolve(config, {})
        weights = options.weights
        if isinstance(weights, Mapping):
            raise ConfigError("weights must be a file, so that its digest is their version")
        before = None if weights is None else identity(Path(weights).stat())
        model = load(config, warmup=options.warmup or True, outputs="numpy")
        package = model.info().sha256
        digest = package
        if weights is not None:
            with Path(weights).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if identity(Path(weights).stat()) != before:
                raise ConfigError(f"{weights} was changed while it was read; update again")
        probe = options.warmup
        if isinstance(probe, bool):
            probe = example_inputs.zeros(model.signature)
        return cls(model, NamedCalls(model), probe, package[:_DIGITS], digest[:_DIGITS])

    async def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Answer:
        """Call the model."""
        result = await self.model.run_async(*args, **kwargs)
        return Answer(result, self.model_version, self.weights_version)


app = FastAPI(title="Open Inference Protocol, version 2")


@app.exception_handler(AotiError)
def _failed(_request: Request, error: AotiError) -> Response:
    status = status_of(error)
    return _json({"error": str(error)}, status, headers_of(status))


def _json(document: Mapping[str, Any], status: int = 200, headers: Any = None) -> Response:
    return Response(orjson.dumps(document), status, headers, "application/json")


@serve.ingress(app)
class Replica:
    """The callable of the deployments that `aoti.serving.ray.deployment` makes.

    Parameters
    ----------
    config : Config
        What to load, under what `user_config` says.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._name = serve.get_replica_context().deployment
        self._served: Served | None = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the model with these settings. Until then, the present one answers."""
        self._served = await asyncio.to_thread(Served.load, self._config.updated(user_config))

    async def check_health(self) -> None:
        """Run the model on small inputs, and raise an error if it does not work."""
        served = self._present()
        await asyncio.to_thread(served.model.run, served.probe)

    async def infer(self, *args: Any, **kwargs: Any) -> Answer:
        """Call the model, as the exported module was called."""
        return await self._present().call(args, kwargs)

    def _present(self, name: str | None = None) -> Served:
        if name not in (None, self._name):
            raise ModelNotFoundError(f"there is no model {name!r:.200}; there is {self._name!r}")
        if self._served is None:
            raise RuntimeError("the model is not loaded: the user_config must not be None")
        return self._served

    @app.get("/v2/health/live")
    async def _live(self) -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def _all_ready(self) -> dict[str, bool]:
        self._present()
        return {"ready": True}

    @app.get("/v2/models/{name}/ready")
    async def _ready(self, name: str) -> dict[str, Any]:
        self._present(name)
        return {"name": name, "ready": True}

    @app.get("/v2/models/{name}")
    async def _metadata(self, name: str) -> dict[str, Any]:
        served = self._present(name)
        return {
            "name": name,
            "versions": [served.model_version],
            "platform": "aoti",
            "inputs": described(served.calls.inputs),
            "outputs": described(served.calls.outputs),
        }

    @app.post("/v2/models/{name}/infer")
    async def _answer(self, name: str, request: Request) -> Response:
        served = self._present(name)
        asked = InferRequest.read(await request.body())
        args, kwargs = served.calls.arguments(asked.arrays(served.calls), "the request")
        answer = await served.call(args, kwargs)
        document = {
            "model_name": name,
            "model_version": answer.model_version,
            "parameters": {"weights_version": answer.weights_version},
            "outputs": asked.answers(served.calls, answer.result),
        }
        return _json(document if asked.id is None else {"id": asked.id, **document})
