"""``aoti serve``: answer the Open Inference Protocol by REST and gRPC."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click

from aoti.cli.options import json_option
from aoti.cli.show import complete_model, show_json
from aoti.cli.terminal import level, summarize


@click.command()
@click.argument(
    "models", nargs=-1, metavar="[NAME=]PT2...", shell_complete=complete_model, required=False
)
@click.option("--http-port", default=8080, show_default=True, help="The port for REST.")
@click.option("--grpc-port", default=8081, show_default=True, help="The port for gRPC.")
@click.option("--batch", type=int, metavar="ROWS", help="Join waiting requests up to this size.")
@click.option(
    "--max-delay",
    type=float,
    metavar="SECONDS",
    help="How long a request waits for others. Default: 0.002.",
)
@click.option("--num-runners", type=int, metavar="N", help="How many runs may go on at a time.")
@click.option("--intra-op-threads", type=int, metavar="N", help="How many threads a run uses.")
@click.option("--queue-size", type=int, metavar="N", help="How many requests may wait, per model.")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long a request may take.")
@click.option(
    "--keep-alive",
    type=click.IntRange(min=1),
    default=65,
    show_default=True,
    metavar="SECONDS",
    help="How long a connection for REST may be idle. Proxies must close theirs earlier.",
)
@click.option("--certfile", metavar="PEM", help="The certificate for HTTPS.")
@click.option("--keyfile", metavar="PEM", help="Its private key.")
@click.option(
    "--config",
    "config_file",
    metavar="TOML",
    help="Settings from a file. Flags win over the environment, which wins over the file.",
)
@json_option
def serve(
    models: tuple[str, ...],
    http_port: int,
    grpc_port: int,
    batch: int | None,
    max_delay: float | None,
    keep_alive: int,
    certfile: str | None,
    keyfile: str | None,
    config_file: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Serve models by REST and gRPC: version 2 of the Open Inference Protocol.

    A model is named after its file, unless NAME= is given. Clients can load further models from
    the directory AOTI_MODELS_DIR. The server listens on all interfaces; SIGTERM ends it when the
    requests that it has are answered. Needs KServe: pip install 'aoti-runtime[serve]'.

    \b
    Example:
      aoti serve minilm.pt2 --batch 32
    """
    from aoti.config import Config
    from aoti.errors import ConfigError
    from aoti.options import Batching

    early: list[int] = []  # SIGHUP, which would end the command
    signal.signal(signal.SIGHUP, lambda number, _: early.append(number))
    if (batch, max_delay) != (None, None):
        delay = Batching().max_delay if max_delay is None else max_delay
        flags["batching"] = Batching(batch, delay)

    def configured() -> tuple[dict[str, Config], dict[str, Any]]:
        config = Config.from_file(config_file) if config_file else Config.from_environment()
        config = config.override(logging_level=level(), **flags)
        sources = _named(models or ((config.model,) if config.model else ()))
        return {name: config.override(model=source) for name, source in sources.items()}, (
            config.options
        )

    sources, options = configured()  # a wrong call is said before KServe is imported
    try:
        from aoti.serving.kserve_server import Server
    except ModuleNotFoundError as error:
        raise ConfigError(
            "aoti serve needs the package kserve: pip install 'aoti-runtime[serve]'"
        ) from error
    server = Server(
        sources,
        options,
        configured,
        http_port=http_port,
        grpc_port=grpc_port,
        timeout_keep_alive=keep_alive,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    server.load()
    if as_json:
        show_json({"models": list(sources), "http_port": http_port, "grpc_port": grpc_port})
    else:
        summarize(f"serving {', '.join(sources)} on ports {http_port} (REST), {grpc_port} (gRPC)")
    server.serve(early)


def _named(models: tuple[str, ...]) -> dict[str, str]:
    """The packages by the names of their models."""
    if not models:
        raise click.UsageError("which package? name it, as in aoti serve model.pt2")
    sources: dict[str, str] = {}
    for text in models:
        name, given, source = text.partition("=")
        if not given:
            name, source = Path(text).stem if text.endswith(".pt2") else Path(text).name, text
        if not name or not source or name in sources:
            raise click.UsageError(f"{text!r:.80}: give each model its own name, as in NAME=PT2")
        sources[name] = source
    return sources
