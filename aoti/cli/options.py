"""Options that verbs share: which model, how it is loaded, what is printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aoti.cli.show import complete_model, device_name
from aoti.cli.terminal import level

if TYPE_CHECKING:
    from aoti.config import Config

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


def package_argument(*, required: bool = True) -> Decorator[Any]:
    """The package as an argument, ``path``."""
    return click.argument(
        "path",
        metavar="PT2" if required else "[PT2]",
        required=required,
        shell_complete=complete_model,
    )


def choice_option(name: str, choices: list[str], text: str) -> Decorator[Any]:
    """An option with a few values; the first one is the default."""
    return click.option(
        name, type=click.Choice(choices), default=choices[0], show_default=True, help=text
    )


model_name_option = click.option(
    "--model-name", metavar="NAME", help="Which model, if the package holds several."
)
device_option = click.option(
    "--device",
    callback=device_name,
    metavar="DEVICE",
    help="cpu or cuda:0. Default: the device that the package was compiled for.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_SOURCES: tuple[Decorator[Any], ...] = (
    package_argument(required=False),
    click.option(
        "-m",
        "--model",
        metavar="PT2",
        shell_complete=complete_model,
        help="The package, or the name of a registered model, instead of PT2.",
    ),
    click.option(
        "--config",
        "config_file",
        metavar="TOML",
        help="Settings from a file. Flags win over the environment, which wins over the file.",
    ),
    model_name_option,
    device_option,
)

# Options of `aoti.load` that are flags of the same name.
_FLAGS = {
    "num_runners": "How many calls may run at the same time.",
    "intra_op_threads": "How many threads a call uses.",
}


def loading_options(command: Command) -> Command:
    """Add the options that `chosen` takes."""
    from aoti.options import SETTINGS

    flags = (
        click.option(f"--{name.replace('_', '-')}", type=SETTINGS[name], metavar="N", help=text)
        for name, text in _FLAGS.items()
    )
    for option in reversed((*_SOURCES, *flags)):
        command = option(command)
    return command


def chosen(config_file: str | None, path: str | None, **flags: Any) -> Config:
    """The configuration to load: flags win over the environment, which wins over the file.

    Raises
    ------
    ConfigError
        As `Config.from_file`.
    click.UsageError
        No model is named, or two are.
    """
    from aoti.config import Config

    config = Config.from_file(config_file) if config_file else Config.from_environment()
    if path is not None and flags["model"] is not None:
        raise click.UsageError(f"{path} or {flags['model']}? name one package")
    flags["model"] = path or flags["model"]
    config = config.override(logging_level=level(), **flags)
    if config.model is None:
        command = click.get_current_context().command_path
        raise click.UsageError(f"which package? name it, as in {command} model.pt2")
    return config
