"""``aoti verify``: whether a package gives the same results as where it was exported."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from aoti.cli.options import device_option, json_option, model_name_option, package_argument
from aoti.cli.progress import progress
from aoti.cli.show import BAD, GOOD, Mark, located, show_json, show_table
from aoti.cli.terminal import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aoti.golden import Comparison


@click.command()
@package_argument()
@model_name_option
@device_option
@click.option("--rtol", type=float, help="Allowed difference relative to each element.")
@click.option("--atol", type=float, help="Allowed difference relative to the largest element.")
@json_option
def verify(
    path: str,
    model_name: str | None,
    device: str | None,
    rtol: float | None,
    atol: float | None,
    as_json: bool,
) -> int:
    """Run a package on its golden values.

    The exporter stored them in the package: example inputs, and the results of the module.

    The exit code is 0 if all outputs are within the tolerances, else 1.

    \b
    Example:
      aoti verify model.pt2
    """
    import aoti
    from aoti.golden import Golden

    with progress() as step:
        step(f"loading {path}")
        with aoti.Package(located(path)) as package:
            name = package.select(model_name)
            golden = Golden.of(package, name)
        with aoti.load(path, model_name=name, device=device) as model:
            step("running on the golden values")
            results = golden.test(model, rtol=rtol, atol=atol)
    passed = all(result.ok for result in results)
    if as_json:
        outputs = [{**_finite(asdict(result)), "ok": result.ok} for result in results]
        show_json({"path": path, "model": name, "ok": passed, "outputs": outputs})
    elif not (passed and quiet()):
        _show(f"model {name} of {path}", results)
    return 0 if passed else 1


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """The same record with None for numbers that JSON does not have."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }


def _show(title: str, results: Sequence[Comparison]) -> None:
    rows: list[tuple[str | Mark, ...]] = []
    for result in results:
        wrong = f", {result.nan} NaN, {result.inf} infinite" if result.nan or result.inf else ""
        said = f"differs by {result.max_error:.1e} of {result.max_value:.3g}{wrong}"
        rows.append((GOOD if result.ok else BAD, result.name, result.dtype, said))
        rows.append(
            ("", "", "", f"allowed: {result.rtol:g} of each, {result.atol:g} of the largest")
        )
        if result.reason:
            rows.append(("", "", "", result.reason))
    show_table(title, ("", "", "", ""), rows)
