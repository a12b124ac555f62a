"""Checks a deployment: is everything there that a model needs, and does it run?

`check` goes through everything on which `aoti.load` or a first call could fail. It continues where
those would stop, so that one report names all problems.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aoti.cache.cache import extract
from aoti.compat.check import check_package
from aoti.compat.finding import Finding
from aoti.compat.platform import check_machine
from aoti.engine import libtorch, native
from aoti.engine.devices import check_device, devices
from aoti.engine.select import Choice, asked, choose
from aoti.errors import AotiError, EngineError, LibtorchError, reason
from aoti.loading import load, wanted_engine
from aoti.machine.device import Device
from aoti.machine.gpu import gpus
from aoti.model import AOTIModel
from aoti.package.package import Package, Source

ReadInputs = Callable[[AOTIModel], Sequence[Any]]


@dataclass
class Report:
    """The findings of `check`.

    Attributes
    ----------
    installation : list of Finding
        The compiled cores, and the libtorch that they run on.
    device_check : list of Finding
        Whether the device exists and computes correctly.
    model_check : list of Finding
        The package compared with this machine and this libtorch, and a load; empty without a model.
    inference_smoke : list of Finding
        One run; empty without inputs.
    """

    installation: list[Finding] = field(default_factory=list)
    device_check: list[Finding] = field(default_factory=list)
    model_check: list[Finding] = field(default_factory=list)
    inference_smoke: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all findings are in order."""
        parts = (self.installation, self.device_check, self.model_check, self.inference_smoke)
        return all(finding.ok for part in parts for finding in part)


def check(
    source: Source | None = None,
    *,
    model_name: str | None = None,
    device: str | Device | None = None,
    inputs: ReadInputs | None = None,
) -> Report:
    """Check an installation and a device, and if they are given, a package and a run.

    Parameters
    ----------
    source : optional
        A package, as for `aoti.load`.
    model_name : str, optional
        Which model of it.
    device : str or Device, optional
        The device to check. Default: the one that the package was compiled for, else the CPU.
    inputs : callable, optional
        Returns the arrays of a flat call, for the loaded model.

    Returns
    -------
    Report

    Raises
    ------
    DeviceError
        `device` is not a valid device.
    PackageNotFoundError, ModelNotFoundError
        There is no such package or model. The call is wrong, not the deployment.
    """
    report = Report(installation=_check_installation())
    runs = report.ok
    if source is None:
        report.device_check = _check_device(Device(device or "cpu"), runs=runs)
        return report
    wanted = None if device is None else Device(device)
    with Package(source) as package:
        name = package.select(model_name)
        target = wanted or Device(package.device(name) or "cpu")
        report.device_check = _check_device(target, runs=runs)
        report.model_check = _check_package(package, name, wanted, runs=runs)
    if report.ok:
        _check_run(report, source, name, wanted, inputs)
    return report


def _which(choice: Choice) -> str:
    return f"the {choice.name} engine runs it" + (f": {choice.why}" if choice.why else "")


def _check_installation() -> list[Finding]:
    builds = libtorch.build_info()["builds"]
    built = ", ".join(f"torch {build['torch']} ({build['backend']})" for build in builds)
    wish = asked()
    native_engine = _check_native()
    # Where one engine is, the other one is needed for some packages only.
    without = native_engine.ok and wish != "libtorch"
    try:
        libtorch.engine()
    except LibtorchError as error:
        message, _, fix = str(error).partition(": ")
        return [
            native_engine,
            Finding("build", without or bool(builds), f"compiled for {built or 'no torch at all'}"),
            Finding("libtorch", without, message, fix),
        ]
    used = libtorch.build_info()["libtorch"]
    return [
        native_engine if wish == "native" else native_engine._replace(ok=True),
        Finding("build", True, f"compiled for {built}"),
        Finding("libtorch", True, f"runs on torch {used['version']} in {used['path']}"),
    ]


def _check_native() -> Finding:
    try:
        native.engine()
    except EngineError as error:
        message, _, fix = str(error).partition("; ")
        return Finding("native", False, message, fix)
    return Finding("native", True, "runs packages without libtorch")


def _check_device(device: Device, *, runs: bool) -> list[Finding]:
    found, reason = gpus()
    drivers = ", ".join(f"{gpu.device} is a {gpu.name} ({gpu.architecture})" for gpu in found)
    if device.type == "cpu":
        cpu = devices()[0]
        findings = [Finding("device", True, f"{cpu.name}, {cpu.architecture}, {cpu.cores} cores")]
    else:
        fix = "run it on a machine with a GPU and its driver, or export the model for the CPU"
        findings = [Finding("driver", bool(found), drivers or reason, "" if found else fix)]
    if runs:
        try:
            milliseconds = check_device(device)
            message = f"{device} computed correctly in {milliseconds:.1f} ms"
            findings.append(Finding("computation", True, message))
        except AotiError as error:
            findings.append(Finding("computation", False, str(error)))
    return findings


def _check_package(
    package: Package, name: str, device: Device | None, *, runs: bool
) -> list[Finding]:
    findings = []
    try:
        findings += check_machine(package.metadata(name), device)
        package.signature(name)
        if package.may_abort(name):
            # The model can run, so this is in order; but people should know.
            message = "an index out of its table's range ends the process: calls cannot be checked"
            fix = "check indices before the call, or export with aoti.export"
            findings.append(Finding("indices", True, message, fix))
        target = device or Device(package.device(name) or "cpu")
        choice = choose(package.code(name), target, wanted_engine(package, None))
        findings.append(Finding("engine", True, _which(choice)))
        if runs:
            choice.load()
        extraction = extract(package, name, form=choice.form)
    except (AotiError, OSError) as error:
        message = reason(error) if isinstance(error, OSError) else str(error)
        return [*findings, Finding("package", False, message)]
    try:
        engine = choice.name if runs else None
        return findings + check_package(package, name, extraction, target, engine=engine)
    finally:
        extraction.release()


def _check_run(
    report: Report, source: Source, name: str, device: Device | None, inputs: ReadInputs | None
) -> None:
    start = time.perf_counter_ns()
    try:
        model = load(source, model_name=name, device=device)
    except AotiError as error:
        report.model_check.append(Finding("load", False, str(error)))
        return
    milliseconds = (time.perf_counter_ns() - start) / 1e6
    report.model_check.append(Finding("load", True, f"loaded in {milliseconds:.1f} ms"))
    with model:
        if inputs is None:
            return
        try:
            result = model.infer(inputs(model))
            shapes = ", ".join(f"{a.dtype} {a.shape}" for a in result.outputs)
            message = f"ran in {result.latency_ms:.3f} ms, returned {shapes or 'nothing'}"
            report.inference_smoke.append(Finding("run", True, message))
        except AotiError as error:
            report.inference_smoke.append(Finding("run", False, str(error)))
