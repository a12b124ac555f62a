"""``aoti bench``: how fast a model is here, and compared with other engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aoti.cli.options import choice_option, json_option, model_name_option, package_argument
from aoti.cli.progress import progress
from aoti.cli.show import show_json
from aoti.cli.terminal import colored, quiet

if TYPE_CHECKING:
    from aoti.bench.report.report import Report


@click.command()
@package_argument()
@click.option(
    "--compare",
    multiple=True,
    metavar="ENGINES",
    help="Engines to compare with: stock, eager, compile, onnxruntime, openvino, or all.",
)
@click.option(
    "--against", multiple=True, metavar="PT2", help="Another package with the same inputs."
)
@click.option(
    "--source",
    metavar="SOURCE",
    help="The module, as for aoti export. All engines except stock need it.",
)
@model_name_option
@choice_option(
    "--mode",
    ["sync", "async", "bound"],
    "Calls one after the other, queued calls, or calls with fixed inputs.",
)
@click.option(
    "--runners", type=int, default=1, metavar="N", help="How many calls run at the same time."
)
@click.option(
    "--threads",
    type=int,
    metavar="N",
    help="Threads per call. Default: OMP_NUM_THREADS, else the cores divided by the runners.",
)
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=N,N,...",
    help="A dynamic size and its values. Default: the smallest one.",
)
@click.option(
    "--shape", "shapes", multiple=True, metavar="INPUT=N,N,...", help="The shape of an input."
)
@click.option(
    "-i",
    "--input",
    "sources",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Inputs as for infer, instead of random ones.",
)
@click.option(
    "--duration",
    type=float,
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Timed seconds for each engine and case.",
)
@click.option("--rounds", type=int, default=10, show_default=True, metavar="N", help="Turns.")
@click.option(
    "--warmup",
    type=float,
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Warm-up before the first round, for each engine and case.",
)
@click.option(
    "--starts",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Processes per engine, for the time to the first answer.",
)
@json_option
@click.option("--markdown", "page", metavar="FILE", help="Also write the report as Markdown.")
@click.option("--png", "picture", metavar="FILE", help="Also plot it (needs matplotlib).")
def bench(
    path: str,
    compare: Sequence[str],
    against: Sequence[str],
    source: str | None,
    model_name: str | None,
    dims: Sequence[str],
    shapes: Sequence[str],
    sources: Sequence[str],
    as_json: bool,
    page: str | None,
    picture: str | None,
    **settings: Any,
) -> None:
    """Measure a model, alone or compared with other engines.

    Each engine runs in its own process, and the engines take turns: other load on the machine, or
    changes of its speed, affect all of them. Engines that are not installed are listed.

    \b
    Example:
      aoti bench model.pt2 --dim batch=1,8,64
      aoti bench model.pt2 --compare all --source mymodel.py:make --threads 1 --png out.png
    """
    from aoti.bench.report.plot import require_matplotlib
    from aoti.bench.run import measure
    from aoti.bench.settings import Settings

    if picture is not None:
        if not picture.endswith(".png"):
            raise click.UsageError(f"--png {picture}: the name must end in .png")
        require_matplotlib()
    for file in filter(None, (page, picture)):
        if not Path(file).absolute().parent.is_dir():
            raise click.UsageError(f"the directory of {file} does not exist")
    with progress() as step:
        report = measure(
            path,
            engines=_engines(compare),
            against=against,
            source=source,
            model_name=model_name,
            inputs=_inputs(path, model_name, sources) if sources else None,
            dims=dict(_numbers("--dim", text) for text in dims),
            shapes=dict(_numbers("--shape", text) for text in shapes),
            settings=Settings(**settings),
            progress=lambda what, part: step(f"{part:4.0%}  {what}"),
        )
    _write(report, page, picture)
    if as_json:
        show_json(report.to_dict())
    elif not (quiet() and (page or picture)):
        from aoti.bench.report.terminal import show

        show(report, color=colored())


def _engines(compare: Sequence[str]) -> list[str]:
    from aoti.bench.engines.registry import PEERS

    names = [name.strip() for text in compare for name in text.split(",")]
    return [*PEERS] if "all" in names else names


def _inputs(path: str, model_name: str | None, sources: Sequence[str]) -> list[Any]:
    from aoti.bench.cases import Takes
    from aoti.cli.io.array_files import read_sources
    from aoti.cli.show import located
    from aoti.package.package import Package

    with Package(located(path)) as package:
        takes = Takes.of(package, package.select(model_name))
    return read_sources(sources, takes.signature.inputs)


def _numbers(option: str, text: str) -> tuple[str, list[int]]:
    name, _, values = text.rpartition("=")
    numbers = values.split(",")
    if not name or not all(number.strip().isdecimal() for number in numbers):
        raise click.UsageError(f"{option} must be NAME=N,N,... with whole numbers, not {text!r}")
    return name, list(map(int, numbers))


def _write(report: Report, page: str | None, picture: str | None) -> None:
    from aoti.bench.report.markdown import markdown
    from aoti.bench.report.plot import save_picture
    from aoti.cli.io.array_files import replaced

    if page is not None:
        with replaced(page) as file:
            file.write(markdown(report).encode())
    if picture is not None:
        with replaced(picture) as file:
            save_picture(report, file)
