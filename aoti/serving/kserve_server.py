"""KServe's server with models of aoti: requests, metrics, and changing models while it serves."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil
from fastapi import Request
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from uvicorn.server import HANDLED_SIGNALS

from aoti import registry
from aoti.config import Config
from aoti.errors import AotiError, ConfigError
from aoti.package.package import Source
from aoti.serving.kserve import AOTIServedModel, InvalidInput
from aoti.serving.kserve_rest import Requests, RESTServer
from aoti.serving.light_kserve import kserve

logger = kserve.logging.logger

Sources = Mapping[str, Source | Config]  # the models that are served from the start, by name

_SIZES = tuple(2**n for n in range(11))  # the bounds of the histogram's buckets


class Repository(kserve.ModelRepository):  # type: ignore[misc]
    """The models of a server; others are found in ``AOTI_MODELS_DIR``.

    Models are changed one at a time. Only the event loop puts a model in the place of another, and
    no request pauses between finding its model and entering the queue of that model: so each
    request is answered by the model that it found.

    Parameters
    ----------
    sources : mapping of str to source of `aoti.load`
        The models by their names.
    options : mapping
        Options of `aoti.load` for all of them, and for models that are found by name.
    """

    def __init__(self, sources: Sources, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.sources, self._options = dict(sources), dict(options)
        self._change = asyncio.Lock()

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
        """Load a model, or load it again: the old one answers until the new one is ready.

        Raises
        ------
        AotiError
            As `make` and `AOTIServedModel.load`.
        """
        async with self._change:
            await self._load(name)

    async def _load(self, name: str) -> None:
        served = self.make(name)
        await asyncio.to_thread(served.load)
        old = self.models.get(name)
        self.update(served)
        logger.info("model %s: serving version %s", name, served.version)
        if old is not None:
            await asyncio.to_thread(old.stop)

    async def update_weights(self, name: str, file: str) -> None:
        """Replace the weights of a model. Requests are answered meanwhile.

        Parameters
        ----------
        name : str
            The model.
        file : str
            The path of a ``.safetensors`` file from ``AOTI_MODELS_DIR``.

        Raises
        ------
        ModelNotFound
            No model has this name.
        ConfigError
            The path leaves the directory, or ``AOTI_MODELS_DIR`` is not set.
        ConstantError, FileNotFoundError
            As `ModelWeights.update`.
        """
        async with self._change:
            if (served := self.models.get(name)) is None:
                raise kserve.errors.ModelNotFound(name)
            weights = served.model.weights
            await asyncio.to_thread(weights.update, _in_models_directory(file), keep=False)
        logger.info("model %s: serving version %s of the weights", name, weights.version)

    async def reload(self, sources: Sources, options: Mapping[str, Any]) -> None:
        """Load what is new: models whose package or options changed, and models that were added.

        Models that are named no more are taken out. Where something fails, the old model goes on
        serving, and the error is logged.

        Parameters
        ----------
        sources, options
            As for `Repository`.
        """
        async with self._change:
            gone = self.sources.keys() - sources.keys()
            self.sources, self._options = dict(sources), dict(options)
            for name in gone & self.models.keys():
                self.unload(name)
            for name in {**sources, **self.models}:
                try:
                    served = self.models.get(name)
                    if (
                        served is None
                        or not served.made_as(self.make(name))
                        or await asyncio.to_thread(served.outdated)
                    ):
                        await self._load(name)
                except (AotiError, OSError) as error:
                    logger.error("model %s is not loaded again: %s", name, error)

    def unload(self, name: str) -> None:
        """Take a model out. It answers the requests that it has.

        Raises
        ------
        KeyError
            No model has this name.
        """
        served = self.models.pop(name)
        threading.Thread(target=served.stop, name=f"aoti unloads {name}").start()


def _in_models_directory(file: str) -> Path:
    """A file that a client names. Links lead where the owner of the directory wants."""
    directory = os.environ.get("AOTI_MODELS_DIR")
    if directory is None:
        raise ConfigError("the server takes weights from AOTI_MODELS_DIR, which is not set")
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
        raise ConfigError(
            f"weights: {file!r:.200} is not the path of a .safetensors file in AOTI_MODELS_DIR"
        )
    return directory / path


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
        sizes = HistogramMetricFamily("aoti_run_calls", "Calls of each run", labels=["model"])
        for name, served in list(self._repository.models.items()):
            if isinstance(served, AOTIServedModel) and served.model is not None:
                info = served.model.info()
                for field, family in families.items():
                    family.add_metric([name], getattr(info, field))
                sizes.add_metric([name], _buckets(info.run_sizes), info.calls)
        yield from families.values()
        yield sizes


def _buckets(sizes: Mapping[int, int]) -> list[tuple[str, float]]:
    """The buckets of a histogram: how many runs had at most so many calls."""
    bounds = [(str(float(bound)), bound) for bound in _SIZES] + [("+Inf", max(sizes, default=0))]
    return [(n, sum(runs for size, runs in sizes.items() if size <= b)) for n, b in bounds]


class Server(kserve.ModelServer):  # type: ignore[misc]
    """KServe's server with models of aoti.

    Parameters
    ----------
    sources : mapping of str to source of `aoti.load`
        The models by their names.
    options : mapping
        Options of `aoti.load` for all of them, and for models that are found by name.
    configured : callable
        Returns both anew. It is called when SIGHUP asks for what changed.
    **settings
        As for `kserve.ModelServer`: `http_port`, `grpc_port`, `timeout_keep_alive`, ...
    """

    def __init__(
        self,
        sources: Sources,
        options: Mapping[str, Any],
        configured: Callable[[], tuple[Sources, Mapping[str, Any]]],
        **settings: Any,
    ) -> None:
        self._configured = configured
        self.repository = Repository(sources, options)
        super().__init__(registered_models=self.repository, **settings)
        self.dataplane = Requests(model_registry=self.repository)
        # Before KServe's own, which reads no parameters.
        kserve.model_server.app.add_api_route(
            "/v2/repository/models/{name}/load", self._load_model, methods=["POST"]
        )

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

    def serve(self, early: Sequence[int] = ()) -> None:
        """Answer requests until SIGTERM or SIGINT ends the server, and close the models.

        Parameters
        ----------
        early : sequence of int
            The signals SIGHUP that came before the server handles them: they are done when it is
            ready.
        """
        metrics = Metrics(self.repository)
        REGISTRY.register(metrics)
        try:
            asyncio.run(self._serve(early))
        finally:
            REGISTRY.unregister(metrics)
            for served in self.repository.models.values():
                served.stop()

    async def _serve(self, early: Sequence[int]) -> None:
        rest = RESTServer(
            self.dataplane,
            self.model_repository_extension,
            self.http_port,
            grace_period=self.grace_period,
            timeout_keep_alive=self.timeout_keep_alive,
            ssl_certfile=self.ssl_certfile,
            ssl_keyfile=self.ssl_keyfile,
        )
        grpc = kserve.protocol.grpc.server.GRPCServer(
            self.grpc_port,
            self.dataplane,
            self.model_repository_extension,
            vars(kserve.model_server.args),
            self.grace_period,
        )
        for number in HANDLED_SIGNALS:  # which uvicorn raises again when it has ended
            signal.signal(number, rest.end)

        async def stop_grpc() -> None:
            await rest.ending.wait()
            await grpc.stop()

        beside = asyncio.create_task(self._beside(early))
        try:
            await asyncio.gather(rest.start(), grpc.start(self.max_threads), stop_grpc())
        finally:
            beside.cancel()

    async def _beside(self, early: Sequence[int]) -> None:
        """What goes on beside the servers: saying when they are ready, and SIGHUP from then on."""
        for port in (self.http_port, self.grpc_port):
            while True:
                await asyncio.sleep(0.002)
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    continue
                writer.close()
                break
        seconds = time.time() - psutil.Process().create_time()
        logger.info("ready %.2f s after the start of the process", seconds)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_soon)
        if early:
            self._reload_soon()

    def _reload_soon(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        try:
            sources, options = self._configured()
        except AotiError as error:
            logger.error("the models stay as they are: %s", error)
        else:
            await self.repository.reload(sources, options)

    async def _load_model(self, name: str, request: Request) -> dict[str, Any]:
        """Load a model; or replace its weights, if the request names a file with them."""
        file = _weights_in(await request.body())
        if file is None:
            await self.model_repository_extension.load(name)
        else:
            try:
                await self.repository.update_weights(name, file)
            except (AotiError, OSError) as error:
                raise InvalidInput(str(error)) from error
        served = self.repository.models[name]
        versions = {"weights_version": served.model.weights.version}
        return {"name": name, "load": True, "model_version": served.version, "parameters": versions}


def _weights_in(body: bytes) -> str | None:
    """The file with weights that a request to load a model names."""
    try:
        parameters = orjson.loads(body or b"{}").get("parameters") or {}
        unknown = parameters.keys() - {"weights"}
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"the request cannot be read: {error}") from error
    file = parameters.get("weights")
    if unknown or not isinstance(file, str | None):
        raise InvalidInput("the parameters of a load can be: weights, the path of a file")
    return file
