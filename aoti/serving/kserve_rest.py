"""KServe's server for REST: what it does with a request, and how it ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Route

from aoti.serving.kserve import InvalidInput
from aoti.serving.light_kserve import kserve
from aoti.serving.statuses import STATUSES, headers_of

_LAST = 1.0  # seconds, when the server ends, for requests that are on their way

logger = kserve.logging.logger

# With those of what KServe raises for requests that it refuses.
_STATUSES: dict[Any, int] = {
    **STATUSES,
    InvalidInput: 400,
    kserve.errors.ModelNotFound: 404,
    kserve.errors.ModelNotReady: 503,
    kserve.errors.ServerNotReady: 503,
    kserve.errors.ServerNotLive: 503,
    kserve.errors.UnsupportedProtocol: 501,
    NotImplementedError: 501,
}
_LONGEST = 500  # characters of a line of the log, without what the logger puts before it

JSON_BYTES = "inference-header-content-length"  # how long the JSON is that binary data follow


class Requests(kserve.protocol.dataplane.DataPlane):  # type: ignore[misc]
    """KServe's way of requests to models, with binary data as they came."""

    async def ready(self) -> bool:
        """Whether there are models, and all of them are ready."""
        models = list(self.model_registry.get_models().values())
        return bool(models) and all(model.ready for model in models)

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """The inputs and outputs of a model, and its version."""
        metadata = await super().model_metadata(model_name)
        return {**metadata, "versions": [self.get_model_from_registry(model_name).version]}

    def decode_inference_request(self, body: Any, headers: Any, model_name: str) -> Any:
        """A request from JSON, or from JSON that binary data follow."""
        try:
            # A request without the header is all JSON, whatever content type it names: curl names
            # another one.
            start = int(headers.get(JSON_BYTES, len(body)))
            if not 0 <= start <= len(body):
                raise ValueError(f"its JSON cannot have {start} of {len(body)} bytes")
            document = orjson.loads(memoryview(body)[:start])
            binary = ["data" not in item for item in document["inputs"]]
            for item in document["inputs"]:
                item.setdefault("data", [])
            request = super().decode_inference_request(
                kserve.protocol.rest.v2_datamodels.InferenceRequest.model_validate(document),
                headers,
                model_name,
            )
            for tensor, raw in zip(request.inputs, binary, strict=True):
                if raw:
                    end = start + int(tensor.parameters["binary_data_size"])
                    if not start <= end <= len(body):
                        raise ValueError("the binary data are too short")
                    tensor._raw_data = memoryview(body)[start:end]
                    start = end
            if start < len(body):
                raise ValueError(f"{len(body) - start} bytes are left over behind its tensors")
            return request
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"the request cannot be read: {error}") from error

    async def answer(self, request: Request) -> Response:
        """Answer a request to run a model.

        KServe's own endpoint does the same, and FastAPI reads its parameters: that takes a third
        of the server's time for a request.
        """
        name, headers = request.path_params["model_name"], request.headers
        body = await request.body()
        if not await self.model_ready(name, disable_predictor_health_check=True):
            raise kserve.errors.ModelNotReady(name)
        asked = self.decode_inference_request(body, headers, name)
        answer, json_bytes = (await self.infer(name, asked, headers))[0].to_rest()
        if json_bytes is None:
            return Response(orjson.dumps(answer), media_type="application/json")
        return Response(answer, 200, {JSON_BYTES: str(json_bytes)}, "application/octet-stream")


class _Listener(kserve.protocol.rest.server._RefreshingServer):  # type: ignore[misc]
    """uvicorn's server, which loses no request when it ends.

    uvicorn closes connections that look idle at once, and with them requests that it has not read.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    async def shutdown(self, sockets: Any = None) -> None:
        """Listen no more, answer what is on its way, and close each connection behind an answer."""
        self.ending.set()
        await asyncio.sleep(0.01)  # accepts the connections that are made
        for server in self.servers:
            server.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        end = time.monotonic() + _LAST
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)


class RESTServer(kserve.protocol.rest.server.RESTServer):  # type: ignore[misc]
    """KServe's server for REST with `Requests`.

    Parameters
    ----------
    requests : Requests
        What answers.
    *arguments, **settings
        As for KServe's own.

    Attributes
    ----------
    ending : asyncio.Event
        A signal has come, and requests that are under way are answered.
    """

    def __init__(self, requests: Requests, *arguments: Any, **settings: Any) -> None:
        super().__init__("kserve.model_server:app", requests, *arguments, **settings)
        self._server = _Listener(self.config)
        self.ending = self._server.ending
        self.end = self._server.handle_exit  # a handler of signals

    def _add_middlewares(self, app: Any) -> None:
        """Add none: KServe's own times each request, and logs it in two lines."""

    def _register_endpoints(self, app: Any) -> None:
        app.router.default_response_class = JSONResponse  # KServe's is deprecated, and says so
        # Before KServe's own: the first that fits is taken.
        path = "/v2/models/{model_name}/infer"
        app.router.routes.append(Route(path, self.dataplane.answer, methods=["POST"]))
        super()._register_endpoints(app)

    def _add_exception_handlers(self, app: Any) -> None:
        super()._add_exception_handlers(app)
        for kind in _STATUSES:
            app.add_exception_handler(kind, _failed)


async def _failed(request: Request, error: Any) -> Response:
    """The answer to a request that is refused, which is a line of the log.

    KServe's own handlers log a traceback: a client that errs could fill the log.
    """
    status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
    said = f"{request.url.path}: {status}, {error}"[:_LONGEST]
    # The client chose parts of this text, and could start a new line of the log with them.
    said = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in said)
    logger.info("%s %s", request.method, said)
    document = orjson.dumps({"error": str(error)})
    return Response(document, status, headers_of(status), "application/json")
