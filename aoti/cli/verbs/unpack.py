"""``aoti unpack``: write a package as a directory that loads in place."""

from __future__ import annotations

import click

from aoti.cli.options import json_option, model_name_option, package_argument
from aoti.cli.progress import progress
from aoti.cli.show import located, show_json
from aoti.cli.terminal import summarize


@click.command()
@package_argument()
@click.argument("directory", metavar="DIRECTORY")
@model_name_option
@json_option
def unpack(path: str, directory: str, model_name: str | None, as_json: bool) -> None:
    """Write a package to a directory that loads in place.

    Loading the directory extracts and copies nothing; its weights are mapped from there. Do not
    change it while a model uses it.

    \b
    Example:
      aoti unpack model.pt2 model && aoti infer --model model --input in.json
    """
    import aoti

    with progress() as step:
        step(f"unpacking {path}")
        written = aoti.unpack(located(path), directory, model_name=model_name)
    size = sum(file.stat().st_size for file in written.rglob("*") if file.is_file())
    if as_json:
        show_json({"directory": str(written), "bytes": size})
    else:
        summarize(f"{written}: {size / 1e6:.1f} MB")
