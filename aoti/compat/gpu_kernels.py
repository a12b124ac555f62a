"""Do the kernels of a package run on a GPU of NVIDIA?"""

from __future__ import annotations

from pathlib import Path

from aoti._text import listing
from aoti.compat.finding import Finding
from aoti.errors import PackageError
from aoti.package.layout import GPU_KERNELS


def check_kernels(directory: Path, architecture: str) -> Finding:
    """Compare the kernels of a model with a GPU.

    Parameters
    ----------
    directory : Path
        The model's directory: ``data/aotinductor/<model>`` of an extraction.
    architecture : str
        The GPU's architecture: ``sm_90``.
    """
    from aoti.package.cubin import read_targets  # only for GPUs

    number = int(architecture.removeprefix("sm_"))
    files = sorted(path for ending in GPU_KERNELS for path in directory.glob(f"*{ending}"))
    try:
        targets = {file.name: read_targets(file) for file in files}
    except PackageError as error:
        return Finding("kernels", False, str(error), "copy the package again, or export it again")
    has = listing(sorted({str(target) for found in targets.values() for target in found}))
    for name, found in targets.items():
        if not any(target.runs_on(number) for target in found):
            message = (
                f"the package's kernels are for {has}, and none of {name} runs on {architecture}"
            )
            return Finding("kernels", False, message, export_for(architecture))
    if not files:
        return Finding("kernels", True, "the package has no files of kernels for GPUs of NVIDIA")
    return Finding("kernels", True, f"the package's kernels are for {has}")


def export_for(architecture: str) -> str:
    """Return what to do about a package for other GPUs."""
    return (
        f"export it on a {architecture}, or on the oldest GPU that it must run on with "
        "aot_inductor.emit_multi_arch_kernel=True"
    )
