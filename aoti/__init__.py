"""Run PyTorch models that AOTInductor compiled, without importing PyTorch.

>>> import aoti
>>> model = aoti.load("minilm.pt2")
>>> model(input_ids=ids, attention_mask=mask)["embedding"]

Importing this package imports neither numpy nor any native library: that happens with the first
`load`. The names below are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aoti._libtorch import build_info
    from aoti.device import Device, DeviceInfo, devices
    from aoti.errors import (
        AmbiguousModelError,
        AotiError,
        ConfigError,
        ConstantError,
        DeviceError,
        ExecutionError,
        IncompatiblePackageError,
        InputError,
        InputTypeError,
        IntegrityError,
        LibtorchError,
        ModelClosedError,
        ModelNotFoundError,
        PackageError,
        PackageNotFoundError,
        QueueFullError,
        RunTimeoutError,
    )
    from aoti.exporting import export
    from aoti.model import AOTIModel, InferenceResult, load
    from aoti.package import Package, load_metadata_from_package
    from aoti.spec import Dim, TensorSpec

__version__ = "0.1.0"

_HOMES = {
    "_libtorch": ("build_info",),
    "device": ("Device", "DeviceInfo", "devices"),
    "errors": (
        "AmbiguousModelError",
        "AotiError",
        "ConfigError",
        "ConstantError",
        "DeviceError",
        "ExecutionError",
        "IncompatiblePackageError",
        "InputError",
        "InputTypeError",
        "IntegrityError",
        "LibtorchError",
        "ModelClosedError",
        "ModelNotFoundError",
        "PackageError",
        "PackageNotFoundError",
        "QueueFullError",
        "RunTimeoutError",
    ),
    "exporting": ("export",),
    "model": ("AOTIModel", "InferenceResult", "load"),
    "package": ("Package", "load_metadata_from_package"),
    "spec": ("Dim", "TensorSpec"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'aoti' has no attribute {name!r}")
    value = getattr(import_module(f"aoti.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
