"""Does a package fit this machine: its system, its CPU's instructions, its GPU?

This compares the package's metadata alone, before anything is extracted. `aoti.compat.binary`
checks the files next.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from aoti._text import listing, quoted
from aoti.compat.finding import Finding
from aoti.compat.gpu_kernels import export_for
from aoti.machine.cpu import INSTRUCTION_SETS, cpu_flags
from aoti.machine.device import TYPES, Device
from aoti.machine.gpu import gpus

_PORTABLE = "export it with cpp.march='x86-64-v3' and cpp.simdlen=256, as aoti.export does"

_MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_PLATFORMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}


def check_machine(metadata: Mapping[str, str], device: Device | None = None) -> list[Finding]:
    """Compare what the exporter recorded with this machine.

    Parameters
    ----------
    metadata : mapping of str to str
        The package's metadata. Keys and values: `get_device_information` in
        ``torch/_inductor/codecache.py``.
    device : Device, optional
        The requested device. Default: the one that the package was compiled for.

    Returns
    -------
    list of Finding
        A package for a GPU is also compared with the GPUs, which initialises their driver. That
        does not create a context, but a child that is forked later cannot use CUDA.
    """
    findings = [_platform(metadata), _isa(metadata)]
    compiled_for = metadata.get("AOTI_DEVICE_KEY", "")
    if compiled_for not in TYPES:
        message = "the package was compiled for no device"
        if compiled_for:
            message = f"the package was compiled for {quoted(compiled_for)}, which is not a device"
        fix = f"export it for one of {', '.join(TYPES)}"
        return [*findings, Finding("device", False, message, fix)]
    device = device or Device(compiled_for)
    if device.type != compiled_for:
        message = f"the package was compiled for {compiled_for}, but {device} was requested"
        fix = f"load it with device={compiled_for!r}, or export the model on {device.type}"
        return [*findings, Finding("device", False, message, fix)]
    findings.append(Finding("device", True, f"the package was compiled for {compiled_for}"))
    if device.type == "cuda":
        findings.append(_gpu(metadata.get("AOTI_COMPUTE_CAPABILITY", ""), device))
    return findings


def _platform(metadata: Mapping[str, str]) -> Finding:
    here, machine = sys.platform, os.uname().machine
    wanted = metadata.get("AOTI_PLATFORM", "") or here
    asked = metadata.get("AOTI_MACHINE", "") or machine
    ok = wanted == here and _MACHINE_ALIASES.get(asked.lower(), asked) == machine
    place = f"{_PLATFORMS.get(wanted) or quoted(wanted)} on {quoted(asked)}"
    message = f"the package was compiled for {place}, this is {_PLATFORMS.get(here, here)} on "
    return Finding("platform", ok, message + machine, "" if ok else export_here(machine))


def export_here(machine: str) -> str:
    """Return what to do about a package for another platform."""
    return f"export the model on a {_PLATFORMS.get(sys.platform, sys.platform)} {machine} machine"


def _isa(metadata: Mapping[str, str]) -> Finding:
    names = metadata.get("AOTI_CPU_ISA", "").upper().split()
    unknown = [name for name in names if name not in INSTRUCTION_SETS]
    has = cpu_flags()
    if not names or not has:
        which = "the package does not say" if not names else "this system does not say"
        return Finding("isa", True, f"{which} which vector instructions it has")
    flags = [flag for name in names for flag in INSTRUCTION_SETS.get(name, ())]
    if missing := [flag for flag in dict.fromkeys(flags) if flag not in has]:
        sets = quoted(" ".join(names))
        message = f"the package was compiled for CPUs with {sets}"
        message += f", and this one does not have {', '.join(missing)}"
        vectors = any(has.issuperset(INSTRUCTION_SETS[name]) for name in ("AVX2", "AVX512"))
        fix = _PORTABLE if vectors else "export it with cpp.march='x86-64' and cpp.simdlen=1"
        return Finding("isa", False, message, fix)
    if unknown:
        message = "the package uses instruction sets unknown to this version of aoti: "
        return Finding("isa", True, message + listing(unknown))
    return Finding("isa", True, f"this CPU has the instructions of {' '.join(names)}")


def _gpu(capability: str, device: Device) -> Finding:
    found, reason = gpus()
    if not found:
        fix = "export the model on the CPU, or run it on a machine with a GPU"
        return Finding("gpu", False, f"the package needs a GPU, and there is none: {reason}", fix)
    index = device.index or 0
    if index >= len(found):
        there = ", ".join(str(gpu.device) for gpu in found)
        fix = f"choose one of {there}"
        return Finding("gpu", False, f"there is no {device}: this machine has {there}", fix)
    gpu = found[index]
    message = f"the package's kernels are for {quoted(capability)}, {gpu.device} is a {gpu.name} "
    message += f"({gpu.architecture})"
    if not capability:
        return Finding("gpu", True, f"the package does not say which GPU it is for; {message}")
    if capability.startswith("gfx") or gpu.architecture.startswith("gfx"):
        ok = capability.partition(":")[0] == gpu.architecture
    elif not re.fullmatch(r"\d{2,4}", capability):
        return Finding("gpu", True, f"{message}: an architecture unknown to this version of aoti")
    else:
        wanted, has = int(capability), int(gpu.architecture.removeprefix("sm_"))
        # Binary kernels run on the same major number from their minor on. A newer major needs
        # portable ones (PTX). Metadata does not say whether there are, so this is not refused here.
        if wanted // 10 < has // 10:
            message += "; newer ones need an export with aot_inductor.emit_multi_arch_kernel=True"
        ok = wanted <= has
    return Finding("gpu", ok, message, "" if ok else export_for(gpu.architecture))
