"""Run PyTorch models that AOTInductor compiled, without importing PyTorch.

>>> import aoti
>>> model = aoti.load("minilm.pt2")
>>> model(input_ids=ids, attention_mask=mask)["embedding"]

Importing this package imports neither numpy nor any native library: that happens with the first
`load`. The names below are looked up when they are first used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from aoti._version import __version__
from aoti.errors import (
    AmbiguousModelError,
    AotiError,
    ConfigError,
    ConstantError,
    DeviceError,
    EngineError,
    ExecutionError,
    ExportError,
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
    SelfTestError,
)

if _TYPE_CHECKING:
    from aoti.arrays.input_plan import InputPlan
    from aoti.arrays.tensor import Tensor
    from aoti.cache.unpack import unpack
    from aoti.config import Config
    from aoti.engine.devices import devices
    from aoti.engine.libtorch import build_info
    from aoti.exporting.exporter import export as export
    from aoti.loading import load
    from aoti.machine.device import Device, DeviceInfo
    from aoti.model import AOTIModel
    from aoti.options import Batching
    from aoti.package.archive import Limits
    from aoti.package.constants import Constant
    from aoti.package.metadata import load_metadata_from_package
    from aoti.package.package import Package
    from aoti.profiling import CallRecord, Trace
    from aoti.protocol import InferenceResult, ModelInfo, ModelRunner
    from aoti.registry import RegisteredModel, models
    from aoti.signature.signature import Signature
    from aoti.signature.spec import ConstantSpec, Dim, TensorSpec
    from aoti.weights.model_weights import ModelWeights

# All but `export`: a star import must not import torch.
__all__ = [
    "AOTIModel",
    "AmbiguousModelError",
    "AotiError",
    "Batching",
    "CallRecord",
    "Config",
    "ConfigError",
    "Constant",
    "ConstantError",
    "ConstantSpec",
    "Device",
    "DeviceError",
    "DeviceInfo",
    "Dim",
    "ExecutionError",
    "ExportError",
    "IncompatiblePackageError",
    "InferenceResult",
    "InputError",
    "InputPlan",
    "InputTypeError",
    "IntegrityError",
    "EngineError",
    "LibtorchError",
    "Limits",
    "ModelClosedError",
    "ModelInfo",
    "ModelNotFoundError",
    "ModelRunner",
    "ModelWeights",
    "Package",
    "PackageError",
    "PackageNotFoundError",
    "QueueFullError",
    "RegisteredModel",
    "RunTimeoutError",
    "SelfTestError",
    "Signature",
    "Tensor",
    "TensorSpec",
    "Trace",
    "__version__",
    "build_info",
    "devices",
    "load",
    "load_metadata_from_package",
    "models",
    "unpack",
]

_HOMES = {
    "AOTIModel": "model",
    "Batching": "options",
    "CallRecord": "profiling",
    "Config": "config",
    "Constant": "package.constants",
    "ConstantSpec": "signature.spec",
    "Device": "machine.device",
    "DeviceInfo": "machine.device",
    "Dim": "signature.spec",
    "InferenceResult": "protocol",
    "InputPlan": "arrays.input_plan",
    "Limits": "package.archive",
    "ModelInfo": "protocol",
    "ModelRunner": "protocol",
    "ModelWeights": "weights.model_weights",
    "Package": "package.package",
    "RegisteredModel": "registry",
    "Signature": "signature.signature",
    "Tensor": "arrays.tensor",
    "TensorSpec": "signature.spec",
    "Trace": "profiling",
    "build_info": "engine.libtorch",
    "devices": "engine.devices",
    "export": "exporting.exporter",
    "load": "loading",
    "load_metadata_from_package": "package.metadata",
    "models": "registry",
    "unpack": "cache.unpack",
}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aoti' has no attribute {name!r}")
    try:
        value = getattr(_import_module(f"aoti.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "aoti.export needs torch: pip install 'aoti-runtime[export]'", name="torch"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "export"]
