"""``aoti verify``: does a package compute here what it did where it was exported?"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from aoti.cli.show import complete_model, device_name, located

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from aoti.golden import Comparison


@click.command()
@click.argument("path", metavar="PT2", shell_complete=complete_model)
@click.option("--model-name", metavar="NAME", help="Which model, if the package holds several.")
@click.option(
    "--device",
    callback=device_name,
    metavar="DEVICE",
    help="cpu or cuda:0. Default: what it was built for.",
)
@click.option("--rtol", type=float, help="What may differ, relative to each element.")
@click.option("--atol", type=float, help="What may differ, relative to the largest element.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    path: str,
    model_name: str | None,
    device: str | None,
    rtol: float | None,
    atol: float | None,
    as_json: bool,
) -> int:
    """Run a package on the golden values that its exporter kept in it.

    The exit code is 0 if all outputs are within the tolerances, else 1.

    \b
    Example:
      aoti verify model.pt2
    """
    import aoti
    from aoti.golden import Golden

    with aoti.Package(located(path)) as package:
        name = package.select(model_name)
        golden = Golden.of(package, name)
    with aoti.load(path, model_name=name, device=device) as model:
        results = golden.test(model, rtol=rtol, atol=atol)
    passed = all(result.ok for result in results)
    if as_json:
        outputs = [{**_finite(asdict(result)), "ok": result.ok} for result in results]
        json.dump({"path": path, "model": name, "ok": passed, "outputs": outputs}, sys.stdout)
        click.echo()
    else:
        _show(f"model {name} of {path}", results)
    return 0 if passed else 1


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """The same with null for what JSON has no number for."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }


def _show(title: str, results: Sequence[Comparison]) -> None:
    from rich.text import Text

    from aoti.cli.show import show_table

    rows: list[tuple[str | Text, ...]] = []
    for result in results:
        mark = Text("ok", "green") if result.ok else Text("bad", "bold red")
        wrong = f", {result.nan} NaN, {result.inf} infinite" if result.nan or result.inf else ""
        said = f"differs by {result.max_error:.1e} of {result.max_value:.3g}{wrong}"
        rows.append((mark, result.name, result.dtype, said))
        rows.append(
            ("", "", "", f"allowed: {result.rtol:g} of each, {result.atol:g} of the largest")
        )
        if result.reason:
            rows.append(("", "", "", result.reason))
    show_table(title, ("", "", "", ""), rows)
