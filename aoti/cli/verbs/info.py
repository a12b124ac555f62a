"""``aoti info``: the content of a package, without loading it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from aoti.cli.options import json_option, package_argument
from aoti.cli.show import located, show_json, show_table
from aoti.package.layout import golden_values

if TYPE_CHECKING:
    from aoti.engine.select import Choice
    from aoti.package.package import Package


@click.command()
@package_argument()
@json_option
def info(path: str, as_json: bool) -> None:
    """Show the content of a package, even if it cannot run here.

    PT2 is its path, or the name of a registered model.

    \b
    Example:
      aoti info model.pt2
    """
    from aoti.package.package import Package

    with Package(located(path)) as package:
        document = {
            "path": path,
            "bytes": sum(package.files.values()),
            "sha256": package.digest,
            "models": [_describe(package, name) for name in package.models],
        }
    if as_json:
        show_json(document)
    else:
        _show(document)


def _describe(package: Package, name: str) -> dict[str, Any]:
    from aoti.errors import PackageError
    from aoti.signature.document import METADATA_KEY, describe

    signature = package.signature(name)
    if signature.call_spec is not None:
        # A structure with types that only the exporting program has does not have a plan.
        with contextlib.suppress(PackageError):
            signature = signature.renamed(signature.plan(signature.call_spec))
    metadata = package.metadata(name)
    choice = _choice(package, name)
    machine = (metadata.get("AOTI_PLATFORM"), metadata.get("AOTI_MACHINE"))
    arguments, results = signature.arguments, signature.results
    return {
        "name": name,
        "device": package.device(name),
        "platform": " ".join(filter(None, machine)),
        "isa": metadata.get("AOTI_CPU_ISA") or None,
        "compute_capability": metadata.get("AOTI_COMPUTE_CAPABILITY") or None,
        "exporter": package.exporter(name),
        "preset": signature.preset,
        "options": dict(signature.options),
        "notes": list(signature.notes),
        "engine": choice.name,
        "not_native": choice.why or None,
        "golden": package.extra(golden_values(name)) is not None,
        "weights": package.weights(name),
        "threads": package.threads(name),
        "inputs": None if arguments is None else [describe(spec) for spec in arguments],
        "outputs": None if results is None else [describe(spec) for spec in results],
        "ranges": {k: {"min": v[0], "max": v[1]} for k, v in signature.ranges.items()},
        "ranges_enforced": signature.enforced,
        "guards": list(signature.guards),
        "may_abort": package.may_abort(name),
        "metadata": {
            k: v for k, v in metadata.items() if not k.startswith("AOTI_") and k != METADATA_KEY
        },
    }


def _choice(package: Package, name: str) -> Choice:
    """The engine that would run the model here."""
    from aoti.engine.select import Choice, choose
    from aoti.errors import AotiError
    from aoti.machine.device import Device

    try:
        return choose(package.code(name), Device(package.device(name) or "cpu"))
    except AotiError as error:  # there is nothing to run, or AOTI_ENGINE asks for what cannot be
        return Choice("libtorch", str(error))


def _show(document: dict[str, Any]) -> None:
    rows = [("size", f"{document['bytes'] / 1e6:.1f} MB"), ("sha256", document["sha256"])]
    show_table(document["path"], ("", ""), rows)
    for model in document["models"]:
        click.echo()
        keys = ("device", "platform", "isa", "compute_capability", "exporter", "weights")
        rows = [(key.replace("_", " "), model[key]) for key in keys if model[key]]
        if model["preset"]:
            rows.append(("preset", model["preset"]))
            rows += [("option", f"{key}={value}") for key, value in model["options"].items()]
            rows += [("note", note) for note in model["notes"]]
        rows += [("sizes", guard) for guard in model["guards"]]
        rows.append(("engine", model["engine"]))
        if model["not_native"]:
            rows.append(("not native", model["not_native"]))
        if model["golden"]:
            rows.append(("golden values", "run them with aoti verify"))
        if model["threads"]:
            rows.append(("threads", f"{model['threads']} in its own kernels, compiled in"))
        show_table(f"model {model['name']}", ("", ""), [*rows, *model["metadata"].items()])
        for what in ("inputs", "outputs"):
            if model[what] is None:
                click.echo(f"{what}: not described by the package")
                continue
            note = "pass this value" if what == "inputs" else "always"
            specs = [(s["name"], *_cells(s, model["ranges"], note)) for s in model[what]]
            notes = any(spec[-1] for spec in specs)
            columns = ("name", "dtype", "shape", "note")[: 4 if notes else 3]
            click.echo()
            show_table(what, columns, [spec[: len(columns)] for spec in specs])
        if model["may_abort"]:
            click.echo(
                "warning: an index out of its table's range ends the process; check indices before "
                "the call, or export with aoti.export, which records their ranges"
            )


def _cells(spec: dict[str, Any], ranges: dict[str, Any], constant: str) -> tuple[str, str, str]:
    """The cells of an argument or a result: dtype, shape, note."""
    if "constant" in spec:
        return "constant", repr(spec["constant"]), constant
    notes = []
    if spec["values"]:
        notes.append(f"values {spec['values'][0]}..{spec['values'][1]}")
    if spec["mutated"]:
        notes.append("written to")
    if spec["shape"] is None:
        return spec["dtype"] or "unknown", "unknown", ", ".join(notes)
    sizes = " x ".join(_size(size, ranges) for size in spec["shape"]) or "scalar"
    return spec["dtype"] or "any", sizes, ", ".join(notes)


def _size(size: int | str, ranges: dict[str, Any]) -> str:
    bounds = ranges.get(str(size))
    if bounds is None or (bounds["min"] is None and bounds["max"] is None):
        return str(size)
    high = "" if bounds["max"] is None else bounds["max"]
    return f"{size} ({bounds['min'] or 0}..{high})"
