"""``aoti check``: whether a model would run here, and if not, why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aoti.cli.options import device_option, json_option, model_name_option, package_argument
from aoti.cli.progress import progress
from aoti.cli.show import BAD, GOOD, Mark, located, show_json, show_table
from aoti.cli.terminal import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aoti.compat.finding import Finding
    from aoti.model import AOTIModel


@click.command()
@package_argument(required=False)
@model_name_option
@device_option
@click.option("-i", "--input", "source", metavar="FILE", help="Inputs for one run, as for infer.")
@json_option
def check(
    path: str | None,
    model_name: str | None,
    device: str | None,
    source: str | None,
    as_json: bool,
) -> int:
    """Check this installation, a device, a package.

    A package is compared with this machine and loaded; with inputs, it is run once. Every finding
    describes the cause and what to do. The exit code is 0 if everything is in order, else 1.

    \b
    Example:
      aoti check model.pt2 -i input.npz
    """
    import aoti
    from aoti import diagnostics
    from aoti.cli.io.array_files import read_inputs

    if source is not None and path is None:
        raise click.UsageError("--input needs a package to run")

    def inputs(model: AOTIModel) -> Sequence[Any]:
        assert source is not None
        return read_inputs(source, model.inputs)

    package = None if path is None else located(path)
    with progress() as step:
        step("checking" if path is None else f"checking {path}")
        report = diagnostics.check(
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
        show_json(document)
    else:
        _show("installation", report.installation)
        _show("device", report.device_check)
        _show(f"package {path}", report.model_check)
        _show("run", report.inference_smoke)
    return 0 if report.ok else 1


def _part(findings: Sequence[Finding]) -> dict[str, Any] | None:
    """A part of the report; None if it was not checked."""
    if not findings:
        return None
    return {"ok": all(f.ok for f in findings), "findings": [f._asdict() for f in findings]}


def _show(title: str, findings: Sequence[Finding]) -> None:
    if quiet():
        findings = [finding for finding in findings if not finding.ok]
    if not findings:
        return
    rows: list[tuple[str | Mark, str, str]] = []
    for finding in findings:
        rows.append((GOOD if finding.ok else BAD, finding.check, finding.message))
        if finding.fix:
            rows.append(("", "", f"-> {finding.fix}"))
    show_table(title, ("", "", ""), rows)
    click.echo()
