"""``aoti infer``: run a model on arrays from files, once or for many inputs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aoti.cli.options import choice_option, chosen, json_option, loading_options
from aoti.cli.progress import counted, progress
from aoti.cli.terminal import note, quiet, say, summarize

if TYPE_CHECKING:
    from aoti.cli.io.output_stream import Arrays, Lines
    from aoti.config import Config
    from aoti.model import AOTIModel

_ONCE = (".json", ".npz", ".npy", ".safetensors")
_MANY = (".jsonl", ".npz", ".safetensors")


@click.command()
@loading_options
@click.option(
    "-i",
    "--input",
    "sources",
    multiple=True,
    metavar="[NAME=]FILE",
    help="The inputs: .json, .npy, .npz or .safetensors, or - for JSON on standard input; several "
    "inputs by NAME. For many calls: .jsonl, or a directory.",
)
@click.option("--lines", is_flag=True, help="Standard input contains JSON lines, one call each.")
@click.option(
    "--batch",
    "rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Join calls up to N rows; 1 joins none. Default: as the model accepts, up to 32.",
)
@choice_option(
    "--invalid",
    ["stop", "skip"],
    "What to do if the model does not accept one of many inputs.",
)
@click.option(
    "-o",
    "--output",
    "destination",
    metavar="FILE",
    help="Write outputs to .json, .npz, .npy or .safetensors, those of many calls to .jsonl; - for "
    "JSON on standard output.",
)
@json_option
def infer(
    sources: Sequence[str],
    lines: bool,
    rows: int | None,
    invalid: str,
    destination: str | None,
    as_json: bool,
    config_file: str | None,
    path: str | None,
    **flags: Any,
) -> None:
    """Run a model on the arrays in a file, or in many.

    \b
    Example:
      echo '{"data": [1, 2, 3], "shape": [1, 3]}' | aoti infer -m model.pt2 -i -
      aoti infer -m minilm -i input_ids=ids.npy -i attention_mask=mask.npy -o out.npz
      aoti infer -m model.pt2 -i requests.jsonl -o results.jsonl --invalid skip

    In JSON an array is {"data": [...], "shape": [...], "dtype": "..."}; the dtype may be left out.
    Several inputs are a list of arrays, or an object of arrays by input name. Values that are not
    finite are the strings "NaN", "Infinity" and "-Infinity"; a complex number is a pair.

    Each JSON line contains one such document; a directory contains one file for each call. Results
    come in the same order, as one line of JSON each, or joined along their first dimension in .npz
    and .safetensors. Calls are joined if the model accepts any number of rows and processes them
    independently, which is verified with the first calls.
    """
    config = chosen(config_file, path, **flags)
    many = lines or any(s.endswith(".jsonl") or Path(s).is_dir() for s in sources)
    if lines and sources not in ((), ("-",)):
        raise click.UsageError("--lines is for standard input; a file must be named .jsonl")
    kinds = _MANY if many else _ONCE
    if destination and not destination.endswith(kinds) and destination != "-":
        what = "of many calls " if many else ""
        raise click.UsageError(
            f"--output {destination}: the name {what}must end in {', '.join(kinds)}"
        )
    if not many:
        _once(config, sources, destination, as_json=as_json)
        return
    if len(sources) > 1:
        raise click.UsageError("many calls must come from one file or directory")
    source = sources[0] if sources else "-"
    _many(config, source, destination, rows=rows, skip=invalid == "skip", as_json=as_json)


def _once(
    config: Config, sources: Sequence[str], destination: str | None, *, as_json: bool
) -> None:
    import aoti
    from aoti.cli.io.array_files import read_sources, write_outputs
    from aoti.cli.io.json_arrays import to_json

    with aoti.load(config, outputs="numpy") as model:
        if not sources and model.inputs != ():
            raise click.UsageError("the model takes inputs: pass their file with -i (--input)")
        names = [spec.name for spec in model.outputs or ()]
        if destination and destination.endswith(".npy") and len(names) > 1:
            raise click.UsageError("several outputs do not fit into one .npy file: write .npz")
        result = model.infer(read_sources(sources, model.inputs))
        outputs = dict(zip(_names(model, result.outputs), result.outputs, strict=True))
        if destination and destination != "-":
            write_outputs(destination, outputs)
        if as_json:
            document = {
                "model": config.model,
                "device": str(model.device),
                "latency_ms": result.latency_ms,
                "memory_bytes": result.memory_bytes,
                "outputs": to_json(outputs),
            }
            json.dump(document, sys.stdout, allow_nan=False)
            click.echo()
        elif destination == "-":
            json.dump(to_json(outputs), sys.stdout, allow_nan=False)
            click.echo()
        elif not (destination and quiet()):
            from aoti.cli.show import show_outputs

            show_outputs(outputs, f"{result.latency_ms:.3f} ms on {model.device}")


def _many(
    config: Config,
    source: str,
    destination: str | None,
    *,
    rows: int | None,
    skip: bool,
    as_json: bool,
) -> None:
    import aoti
    from aoti.arrays.batching import Batches
    from aoti.cli.io.input_stream import in_directory, in_lines
    from aoti.cli.io.pipeline import Stream
    from aoti.errors import AotiError

    with aoti.load(config, outputs="numpy") as model:
        stream = Stream(model, Batches.of(model.signature), rows)
        read = in_directory if Path(source).is_dir() else in_lines
        start, done, skipped = time.perf_counter(), 0, 0
        with contextlib.ExitStack() as stack:
            sinks = [*_sinks(stack, destination, as_json=as_json)]
            results = stream.results(read(source, model.inputs))
            # Not between results that go to the same terminal.
            if not (as_json or destination == "-") or not sys.stdout.isatty():
                results = counted(results, stack.enter_context(progress()))
            for request, outcome in results:
                if not isinstance(outcome, AotiError):
                    outputs = dict(zip(_names(model, outcome), outcome, strict=True))
                    for sink in sinks:
                        sink.put(request.label, outputs)
                    done += 1
                elif skip:
                    say(f"aoti: {_blame(request.label, outcome)}", err=True)
                    skipped += 1
                else:
                    outcome.args = (_blame(request.label, outcome),)
                    raise outcome
            for sink in sinks:
                sink.end()
        seconds = time.perf_counter() - start
        if stream.warning:
            note(stream.warning)
        if not as_json and destination != "-":
            left_out = f", {skipped} skipped" if skipped else ""
            summarize(
                f"{done} inputs{left_out} in {seconds:.2f} s ({done / seconds:.0f} per second), "
                f"{stream.runs} runs on {model.device}"
            )


def _blame(label: dict[str, Any], error: Exception) -> str:
    ((what, which),) = label.items()
    return f"{what} {which}: {error}"


def _sinks(
    stack: contextlib.ExitStack, destination: str | None, *, as_json: bool
) -> Iterator[Arrays | Lines]:
    from aoti.cli.io.array_files import replaced
    from aoti.cli.io.output_stream import Arrays, Lines

    if as_json or destination == "-":
        yield Lines(sys.stdout)
    if destination is not None and destination.endswith(".jsonl"):
        yield Lines(stack.enter_context(replaced(destination)))
    elif destination is not None and destination != "-":
        yield Arrays(destination)


def _names(model: AOTIModel, outputs: Sequence[Any]) -> list[str]:
    names = [spec.name for spec in model.outputs or ()]
    if len(names) != len(outputs):
        return [f"output.{index}" for index in range(len(outputs))]
    return names
