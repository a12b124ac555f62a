"""``aoti export``: compile a PyTorch model into a package. The only verb that needs torch."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from aoti._logging import debugging
from aoti._warnings import AotiWarning
from aoti.cli.options import choice_option, json_option
from aoti.cli.progress import progress
from aoti.cli.show import show_json, show_table
from aoti.cli.terminal import note, quiet

if TYPE_CHECKING:
    from aoti.exporting.report import Exported, ExportedModel
    from aoti.exporting.verify.speed import Speed


@click.command()
@click.argument("sources", metavar="[NAME=]SOURCE...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="PT2", help="The package to write.")
@click.option("--checkpoint", metavar="FILE", help="Weights: .safetensors, or a state dict.")
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=MIN..MAX",
    help="The range of a named size, or how to compute it: height=4*n.",
)
@click.option("--device", metavar="DEVICE", help="cpu or cuda. Default: the device of the module.")
@choice_option(
    "--preset",
    ["portable", "native", "updatable"],
    "For every machine, for this CPU model, or with replaceable weights.",
)
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An Inductor option, which wins over the preset.",
)
@click.option("--no-passes", is_flag=True, help="Skip the preset's rewrites of the graph.")
@click.option(
    "--metadata", multiple=True, metavar="NAME=TEXT", help="Text to store in the package."
)
@choice_option(
    "--buffers", ["refuse", "reset", "arguments"], "What to do if the module changes its buffers."
)
@click.option("--or-static", is_flag=True, help="Fix all sizes if they cannot be dynamic.")
@click.option("--golden", is_flag=True, help="Store example values, for aoti verify.")
@click.option("--verify", is_flag=True, help="Compare with eager PyTorch over the whole ranges.")
@click.option(
    "--measure", is_flag=True, help="Compare its speed with eager PyTorch and the stock export."
)
@json_option
def export(
    sources: Sequence[str],
    output: str,
    checkpoint: str | None,
    dims: Sequence[str],
    device: str | None,
    preset: str,
    options: Sequence[str],
    no_passes: bool,
    metadata: Sequence[str],
    buffers: Any,
    or_static: bool,
    golden: bool,
    verify: bool,
    measure: bool,
    as_json: bool,
) -> None:
    """Compile a PyTorch model into a package.

    SOURCE is pkg.mod:callable or file.py:callable, which returns (module, args, kwargs,
    dynamic_shapes), of which the last items may be left out; or a program that torch.export.save
    wrote. For several models in one package, give NAME=SOURCE for each.

    \b
    Example:
      aoti export mymodel.py:make -o model.pt2 --dim batch=1..64 --golden --verify
    """
    if not output.endswith(".pt2"):
        raise click.UsageError(f"--output {output}: the name must end in .pt2")
    named = _models(sources)
    sys.path.insert(0, "")  # modules of the current directory, as with python -m
    with progress(in_lines=True) as step, _only_our_words():
        step("importing torch")
        try:
            from aoti.exporting.build.presets import parse_option
            from aoti.exporting.exporter import export as export_package
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise click.ClickException(
                "exporting needs torch: pip install 'aoti-runtime[export]'"
            ) from error
        exported = export_package(
            named,
            path=output,
            dims=dict(_pair(text, "a size must be NAME=MIN..MAX or NAME=4*OTHER") for text in dims),
            checkpoint=checkpoint,
            device=device,
            preset=preset,
            options=dict(map(parse_option, options)),
            passes=() if no_passes else None,
            metadata=dict(_pair(text, "metadata must be NAME=TEXT") for text in metadata),
            buffers=buffers,
            or_static=or_static,
            golden=golden,
            verify=verify,
            measure=measure,
            progress=step,
        )
    if as_json:
        show_json(_document(exported))
    elif not quiet():
        _show(exported)


def _models(sources: Sequence[str]) -> dict[str, str]:
    """The sources by the names of their models."""
    if len(sources) == 1 and "=" not in sources[0]:
        return {"model": sources[0]}
    named = dict(_pair(text, "several models must be NAME=SOURCE") for text in sources)
    if len(named) < len(sources):
        raise click.UsageError("two models have the same name")
    return named


def _pair(text: str, form: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.UsageError(f"{form}, not {text!r}")
    return name, value


@contextlib.contextmanager
def _only_our_words() -> Iterator[None]:
    """Show the warnings of aoti at the end, and hide the warnings, logs and graphs of torch."""
    with contextlib.ExitStack() as stack:
        if not debugging():
            # Not a file that is closed later: torch's loggers keep the stream that they find here.
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=AotiWarning)
        yield
    for warning in caught or ():
        note(f"warning: {warning.message}")


def _document(exported: Exported) -> dict[str, Any]:
    return {
        "path": str(exported.path),
        "bytes": exported.bytes,
        "models": [_describe(name, model) for name, model in exported.models.items()],
    }


def _describe(name: str, model: ExportedModel) -> dict[str, Any]:
    return {
        "name": name,
        "seconds": model.seconds,
        "preset": model.preset.name,
        "options": dict(model.preset.options),
        "attempts": [{"how": a.how, "error": a.error} for a in model.attempts],
        "rewrites": list(model.rewrites),
        "notes": list(model.signature.notes),
        "milliseconds": model.speed and asdict(model.speed),
        "verified": [
            {
                "sizes": case.sizes,
                "skipped": case.skipped,
                "max_errors": {output.name: output.max_error for output in case.outputs},
            }
            for case in model.cases
        ],
    }


def _speed(speed: Speed) -> str:
    others = ("eager", speed.eager), ("the stock export", speed.stock)
    shown = (f"{time / speed.package:.2f} times as fast as {name}" for name, time in others)
    return f"{speed.package:.3f} ms a call: {', '.join(shown)}"


def _show(exported: Exported) -> None:
    show_table(str(exported.path), ("", ""), [("size", f"{exported.bytes / 1e6:.1f} MB")])
    for name, model in exported.models.items():
        rows = [
            ("compiled in", f"{model.seconds:.1f} s"),
            ("preset", model.preset.name),
        ]
        rows += [("option", f"{key}={value}") for key, value in model.preset.options.items()]
        rows += [("traced", f"{a.how}: {a.error or 'done'}") for a in model.attempts]
        rows += [("note", note) for note in model.signature.notes]
        if model.speed is not None:
            rows.append(("speed", _speed(model.speed)))
        if model.cases:
            compared = [case for case in model.cases if case.skipped is None]
            worst = max((o.max_error for case in compared for o in case.outputs), default=0.0)
            rows.append(
                ("verified", f"equal to eager at {len(compared)} sizes; differs by {worst:.1e}")
            )
            rows += [
                ("skipped", f"{', '.join(f'{k}={v}' for k, v in c.sizes.items())}: {c.skipped}")
                for c in model.cases
                if c.skipped
            ]
        click.echo()
        show_table(f"model {name}", ("", ""), rows)
