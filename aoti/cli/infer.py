"""``aoti infer``: run a model once on arrays from a file."""

from __future__ import annotations

import json
import sys

import click

from aoti.cli.show import device_name


@click.command()
@click.option("-m", "--model", "path", required=True, metavar="PT2", help="The package.")
@click.option("--model-name", metavar="NAME", help="Which model, if the package holds several.")
@click.option(
    "--device",
    callback=device_name,
    metavar="DEVICE",
    help="cpu or cuda:0. Default: what it was built for.",
)
@click.option(
    "-i",
    "--input",
    "source",
    metavar="FILE",
    help="The inputs: .json, .npy or .npz, or - for JSON on standard input.",
)
@click.option(
    "-o", "--output", "destination", metavar="FILE", help="Write outputs to .json, .npz or .npy."
)
@click.option("--json", "as_json", is_flag=True, help="Print outputs and timing as JSON.")
def infer(
    path: str,
    model_name: str | None,
    device: str | None,
    source: str | None,
    destination: str | None,
    as_json: bool,
) -> None:
    """Run a model on the arrays in a file.

    \b
    Example:
      echo '{"data": [1, 2, 3], "shape": [1, 3]}' | aoti infer -m model.pt2 -i -

    In JSON an array is {"data": [...], "shape": [...], "dtype": "..."}; the dtype may be left out.
    Several inputs are a list of those, or an object of those by input name. What is not finite is
    the string "NaN", "Infinity" or "-Infinity"; a complex number is a pair.
    """
    import aoti
    from aoti.cli.arrays import read_inputs, to_json, write_outputs

    if destination and not destination.endswith((".json", ".npz", ".npy")):
        raise click.UsageError(f"--output {destination}: the name must end in .json, .npz or .npy")
    with aoti.load(path, model_name=model_name, device=device) as model:
        if source is None and model.inputs != ():
            raise click.UsageError("the model takes inputs: name their file with --input")
        names = [spec.name for spec in model.outputs or ()]
        if destination and destination.endswith(".npy") and len(names) > 1:
            raise click.UsageError("several outputs do not go into one .npy file: write .npz")
        result = model.infer(read_inputs(source, model.inputs) if source else [])
        if len(names) != len(result.outputs):
            names = [f"output.{index}" for index in range(len(result.outputs))]
        outputs = dict(zip(names, result.outputs, strict=True))
        if destination:
            write_outputs(destination, outputs)
        if as_json:
            document = {
                "model": path,
                "device": str(model.device),
                "latency_ms": result.latency_ms,
                "memory_bytes": result.memory_bytes,
                "outputs": to_json(outputs),
            }
            json.dump(document, sys.stdout, allow_nan=False)
            click.echo()
        else:
            from aoti.cli.show import show_outputs

            show_outputs(outputs, f"{result.latency_ms:.3f} ms on {model.device}")
