"""The metadata of a package, without anything else of it."""

from __future__ import annotations

from aoti.package.package import Package, Source


def load_metadata_from_package(source: Source, model_name: str | None = None) -> dict[str, str]:
    """The metadata of a model in a package, without loading it or libtorch.

    Parameters
    ----------
    source : str, os.PathLike, bytes, bytearray, memoryview or binary file
        As for `Package`.
    model_name : str, optional
        Which model, where there are several.

    Returns
    -------
    dict of str to str
        ``AOTI_DEVICE_KEY``, ``AOTI_PLATFORM``, ``AOTI_MACHINE``, ``AOTI_CPU_ISA``,
        ``AOTI_COMPUTE_CAPABILITY`` and whatever the exporter added.
    """
    with Package(source) as package:
        return package.metadata(model_name)
