"""``aoti unpack``: a package as a directory that is loaded where it stands."""

from __future__ import annotations

import json
import sys

import click

from aoti.cli.show import complete_model, located


@click.command()
@click.argument("path", metavar="PT2", shell_complete=complete_model)
@click.argument("directory", metavar="DIRECTORY")
@click.option("--model-name", metavar="NAME", help="Which model, if the package holds several.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def unpack(path: str, directory: str, model_name: str | None, as_json: bool) -> int:
    """Write a model of a package to a directory that loads without an extraction.

    Nothing is copied or written when it is loaded, and its weights are mapped from there. It must
    stay as it is while a model uses it.

    \b
    Example:
      aoti unpack model.pt2 model && aoti infer --model model --input in.json
    """
    import aoti

    written = aoti.unpack(located(path), directory, model_name=model_name)
    size = sum(file.stat().st_size for file in written.rglob("*") if file.is_file())
    if as_json:
        json.dump({"directory": str(written), "bytes": size}, sys.stdout, indent=2)
        click.echo()
    else:
        click.echo(f"{written}: {size / 1e6:.1f} MB")
    return 0
