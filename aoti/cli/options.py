"""Options that verbs share: which model, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from aoti.cli.show import complete_model, device_name
from aoti.config import Config

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "-m",
        "--model",
        metavar="PT2",
        shell_complete=complete_model,
        help="The package, or the name of a registered model.",
    ),
    click.option(
        "--config",
        "config_file",
        metavar="TOML",
        help="Settings from a file. Flags go over the environment, and that over the file.",
    ),
    click.option("--model-name", metavar="NAME", help="Which model, if the package holds several."),
    click.option(
        "--device",
        callback=device_name,
        metavar="DEVICE",
        help="cpu or cuda:0. Default: what it was built for.",
    ),
    click.option("--num-runners", type=int, metavar="N", help="How many calls run at a time."),
    click.option("--intra-op-threads", type=int, metavar="N", help="How many threads a call uses."),
)


def loading_options(command: Command) -> Command:
    """Add the options that `chosen` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen(config_file: str | None, **flags: Any) -> Config:
    """The configuration to load by: flags over the environment, and that over the file.

    Raises
    ------
    ConfigError
        As `Config.from_file`.
    click.UsageError
        Nothing says which model.
    """
    config = Config.from_file(config_file) if config_file else Config.from_environment()
    config = config.override(**flags)
    if config.model is None:
        raise click.UsageError("Missing option '-m' / '--model': which package?")
    return config
