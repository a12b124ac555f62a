"""All checks of an extracted model, in the order in which `aoti.load` needs them."""

from __future__ import annotations

from functools import partial

from aoti.cache.extraction import Extraction
from aoti.compat.binary import check_files
from aoti.compat.finding import Finding
from aoti.compat.native import check_native
from aoti.machine.device import Device
from aoti.package.package import Package


def check_package(
    package: Package,
    model: str,
    extraction: Extraction,
    device: Device,
    *,
    engine: str | None = None,
) -> list[Finding]:
    """Compare a model's extracted files with this machine, and its code with an engine.

    The package's metadata is checked before anything is extracted:
    `aoti.compat.platform.check_machine`.

    Parameters
    ----------
    package : Package
        Where the model comes from.
    model : str
        Its name.
    extraction : Extraction
        The model's files, in a directory.
    device : Device
        The device that the model will run on.
    engine : {'native', 'libtorch'}, optional
        The engine that will run it, which is loaded. Without it, the code is not compared with one.

    Returns
    -------
    list of Finding
        Where the code is damaged, or for another machine, nothing further is checked. Libraries
        that the code needs are loaded after everything that can be checked without them is fine.
    """
    directory = extraction.code(model)
    findings = check_files(
        directory, partial(package.num_constants, model), extraction.weights, device
    )
    if engine is None or not findings[0].ok:
        return findings
    # With an engine, more versions of symbols can be compared than without.
    files = [finding for finding in findings if finding.check != "versions"]
    if engine == "native":
        return files + check_native(directory)
    from aoti.compat.libtorch import check_libtorch  # most models run without libtorch
    from aoti.engine import libtorch

    fine = all(finding.ok for finding in files)
    return files + check_libtorch(directory, libtorch.library(), libtorch.has_operator, load=fine)
