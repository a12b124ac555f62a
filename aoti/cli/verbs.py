"""The group of verbs: each is imported when it is called, and all have some options in common."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from aoti.cli.terminal import COMMON


class Verbs(click.Group):
    """A group whose verbs are imported when they are called.

    Parameters
    ----------
    homes : mapping of str to str
        By the name of each verb, in the order of the help, the module of `aoti.cli` and the name in
        it.
    """

    def __init__(self, *args: Any, homes: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(COMMON)
        self._homes = homes

    def list_commands(self, _context: click.Context) -> list[str]:
        """The names of the verbs."""
        return list(self._homes)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """A verb, with the options that all have."""
        if name not in self._homes:
            return None
        module, attribute = self._homes[name]
        command: click.Command = getattr(import_module(f"aoti.cli.{module}"), attribute)
        _add_common(command)
        return command


def _add_common(command: click.Command) -> None:
    if COMMON[0] in command.params:
        return
    command.params.extend(COMMON)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_common(inner)
