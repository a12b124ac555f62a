"""All checks of an extracted model, in the order in which `aoti.load` needs them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

from aoti.cache.extraction import Extraction
from aoti.compat.binary import check_files
from aoti.compat.finding import Finding
from aoti.compat.libtorch import check_libtorch
from aoti.machine.device import Device
from aoti.package.package import Package


def check_package(
    package: Package,
    model: str,
    extraction: Extraction,
    device: Device,
    *,
    library: ctypes.CDLL | None = None,
    has_operator: Callable[[str, str], bool] | None = None,
) -> list[Finding]:
    """Compare a model's extracted files with this machine, and its code with libtorch.

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
    library : ctypes.CDLL, optional
        The loaded libtorch. Without it, the code is not compared with libtorch.
    has_operator : callable, optional
        Whether an operator is registered in that libtorch, by name and overload.

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
    if library is None or has_operator is None or not findings[0].ok:
        return findings
    # With libtorch, more versions of symbols can be compared than without.
    files = [finding for finding in findings if finding.check != "versions"]
    fine = all(finding.ok for finding in files)
    return files + check_libtorch(directory, library, has_operator, load=fine)
