"""``aoti info``: what is in a package. Loads nothing of it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from aoti.package import Package


@click.command()
@click.argument("path", metavar="PT2")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(path: str, as_json: bool) -> None:
    """Show what a package holds, also one that cannot run here.

    \b
    Example:
      aoti info model.pt2
    """
    from aoti.package import Package

    with Package(path) as package:
        document = {
            "path": path,
            "bytes": sum(package.files.values()),
            "sha256": package.digest,
            "models": [_describe(package, name) for name in package.models],
        }
    if as_json:
        json.dump(document, sys.stdout, indent=2)
        click.echo()
    else:
        _show(document)


def _describe(package: Package, name: str) -> dict[str, Any]:
    from aoti.errors import PackageError
    from aoti.pytree import CallPlan
    from aoti.spec import Signature
    from aoti.wrapper import read_call_spec, read_wrapper

    source = package.source(name) or ""
    signature = Signature(read_wrapper(source))
    outputs: list[str] | None = None
    if call_spec := read_call_spec(source):
        try:
            plan = CallPlan.from_json(*call_spec)
        except PackageError:
            pass  # the structure is one that only the exporting program knows
        else:
            outputs = list(plan.output_names)
            if signature.inputs is not None and len(signature.inputs) == plan.num_inputs:
                signature.rename(plan.input_names, plan.input_paths)
    metadata = package.metadata(name)
    return {
        "name": name,
        "device": metadata.get("AOTI_DEVICE_KEY"),
        "platform": " ".join(
            filter(None, (metadata.get("AOTI_PLATFORM"), metadata.get("AOTI_MACHINE")))
        ),
        "isa": metadata.get("AOTI_CPU_ISA") or metadata.get("AOTI_COMPUTE_CAPABILITY") or None,
        "inputs": None if signature.inputs is None else [asdict(s) for s in signature.inputs],
        "outputs": outputs,
        "metadata": {k: v for k, v in metadata.items() if not k.startswith("AOTI_")},
    }


def _show(document: dict[str, Any]) -> None:
    from aoti.cli.show import show_table

    rows = [("size", f"{document['bytes'] / 1e6:.1f} MB"), ("sha256", document["sha256"])]
    show_table(document["path"], ("", ""), rows)
    for model in document["models"]:
        click.echo()
        rows = [(key, model[key]) for key in ("device", "platform", "isa") if model[key]]
        rows += [("outputs", ", ".join(model["outputs"] or ["unknown"]))]
        rows += list(model["metadata"].items())
        show_table(f"model {model['name']}", ("", ""), rows)
        if model["inputs"] is None:
            click.echo("inputs: the package does not tell")
            continue
        inputs = [(s["name"], s["dtype"], _shape(s["shape"])) for s in model["inputs"]]
        show_table("inputs", ("name", "dtype", "shape"), inputs)


def _shape(shape: list[Any] | None) -> str:
    if shape is None:
        return "unknown"
    return " x ".join(_size(size) for size in shape) or "scalar"


def _size(size: Any) -> str:
    if not isinstance(size, dict):
        return str(size)
    low, high = size["min"], size["max"]
    bounds = "" if low is None and high is None else f" ({low or 0}..{high or ''})"
    return f"{size['name']}{bounds}"
