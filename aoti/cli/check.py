"""``aoti check``: would a model run here, and if not, why?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from aoti.cli.show import complete_model, device_name, located

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aoti.findings import Finding
    from aoti.model import AOTIModel


@click.command()
@click.argument("path", metavar="[PT2]", required=False, shell_complete=complete_model)
@click.option("--model-name", metavar="NAME", help="Which model, if the package holds several.")
@click.option(
    "--device",
    callback=device_name,
    metavar="DEVICE",
    help="cpu or cuda:0. Default: what the package was built for, else the CPU.",
)
@click.option("-i", "--input", "source", metavar="FILE", help="Inputs for one run, as for infer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    path: str | None,
    model_name: str | None,
    device: str | None,
    source: str | None,
    as_json: bool,
) -> int:
    """Check this installation, a device, and a package if one is given.

    With a package, it is compared with this machine and loaded; with inputs, it is run once. Every
    finding has its cause and what to do. The exit code is 0 if all is in order, else 1.

    \b
    Example:
      aoti check model.pt2 -i input.npz
    """
    import aoti
    from aoti import health
    from aoti.cli.files import read_inputs

    if source is not None and path is None:
        raise click.UsageError("--input needs a package to run")

    def inputs(model: AOTIModel) -> Sequence[Any]:
        assert source is not None
        return read_inputs(source, model.inputs)

    package = None if path is None else located(path)
    report = health.check(
        package,
        model_name=model_name,
        device=device,
        inputs=inputs if source else None,
    )
    build = aoti.build_info()
    if as_json:
        document = {
            "ok": report.ok,
            "version": build["version"],
            "libtorch": build["libtorch"],
            "backend": build["libtorch"] and build["libtorch"]["backend"],
            "installation": _part(report.installation),
            "device_check": _part(report.device_check),
            "model_check": _part(report.model_check),
            "inference_smoke": _part(report.inference_smoke),
        }
        json.dump(document, sys.stdout, indent=2)
        click.echo()
    else:
        _show("installation", report.installation)
        _show("device", report.device_check)
        _show(f"package {path}", report.model_check)
        _show("run", report.inference_smoke)
    return 0 if report.ok else 1


def _part(findings: Sequence[Finding]) -> dict[str, Any] | None:
    """A part of the report; None if it was not looked at."""
    if not findings:
        return None
    return {"ok": all(f.ok for f in findings), "findings": [asdict(f) for f in findings]}


def _show(title: str, findings: Sequence[Finding]) -> None:
    from rich.text import Text

    from aoti.cli.show import show_table

    if not findings:
        return
    rows: list[tuple[str | Text, str, str]] = []
    for finding in findings:
        mark = Text("ok", "green") if finding.ok else Text("bad", "bold red")
        rows.append((mark, finding.check, finding.message))
        if finding.fix:
            rows.append(("", "", f"-> {finding.fix}"))
    show_table(title, ("", "", ""), rows)
    click.echo()
