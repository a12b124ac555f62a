"""``aoti models``: the registered models."""

from __future__ import annotations

import click

from aoti.cli.options import json_option
from aoti.cli.show import Mark, show_json, show_table


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the models that can be loaded by name.

    They are in the directory AOTI_MODELS_DIR, in installed wheels, and in the directory "models"
    next to a frozen application.

    \b
    Example:
      AOTI_MODELS_DIR=/srv/models aoti models
    """
    from aoti import registry

    found = registry.models()
    if as_json:
        documents = [
            {
                "name": model.name,
                "version": model.version,
                "path": str(model.path),
                "place": model.place,
                "description": model.description,
                "default": model.default,
                "options": model.options,
                "problem": model.problem,
            }
            for model in found
        ]
        show_json(documents)
    elif not found:
        click.echo(
            "no models are known by name: set AOTI_MODELS_DIR to a directory of packages, or "
            "install a wheel that contains one"
        )
    else:
        rows = [
            (
                f"{model.name} (default)" if model.default else model.name,
                model.version or "",
                model.place,
                Mark(model.problem, "red") if model.problem else model.description,
            )
            for model in found
        ]
        show_table("models", ("name", "version", "place", ""), rows)
