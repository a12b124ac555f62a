"""Loading and calling models: the policy above the compiled core."""

from __future__ import annotations

import operator
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aoti import _libtorch, cache
from aoti.device import Device
from aoti.errors import (
    ConfigError,
    DeviceError,
    IncompatiblePackageError,
    InputError,
    InputTypeError,
    PackageError,
)
from aoti.package import Package
from aoti.pytree import CallPlan
from aoti.spec import Signature, TensorSpec
from aoti.wrapper import read_wrapper

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from aoti import _core
    from aoti.extraction import Extraction

_Flatten = Callable[[tuple[object, ...], dict[str, object]], Sequence[object]]


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """What `AOTIModel.infer` gives.

    Attributes
    ----------
    outputs : list of numpy.ndarray
        The outputs, flat, in the order of the output treespec.
    latency_ms : float
        Wall time of the call in milliseconds, waiting for a runner included.
    memory_bytes : int or None
        Peak memory of the call on the device; None on the CPU.
    """

    outputs: list[NDArray[np.generic]]
    latency_ms: float
    memory_bytes: int | None


def load(
    path: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    device: str | Device | None = None,
    device_index: int = -1,
    num_runners: int = 1,
    single_threaded: bool = False,
) -> AOTIModel:
    """Load a compiled model from a package.

    A package is native code that runs with your rights: load only what you would also execute.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.pt2`` file made by ``aoti.export`` or ``torch._inductor.aoti_compile_and_package``,
        or a directory with the same content.
    model_name : str, optional
        Which model of the package; needed only where it holds several.
    device : str or Device, optional
        The device to run on. It must be of the type that the package was compiled for, which is
        also the default. Nothing falls back to another device.
    device_index : int, default -1
        The number of the device, where `device` has none; -1 is the CPU or the current device.
    num_runners : int, default 1
        How many calls may run at the same time. Each runner has its own intermediate buffers; the
        weights are shared. Further calls wait their turn, without the GIL.
    single_threaded : bool, default False
        Load without the container's own locking, which CUDA graphs need. Calls then exclude each
        other, so `num_runners` must be 1.

    Returns
    -------
    AOTIModel

    Raises
    ------
    PackageNotFoundError, PackageError, ModelNotFoundError
        The package is missing, damaged, or does not hold the model.
    IncompatiblePackageError
        It was compiled for another device than is asked for, or for one that this version does not
        run models on: anything but the CPU.
    DeviceError
        The device is not spelled right or contradicts `device_index`.
    ConfigError
        `num_runners` is less than 1, or more than a single-threaded model has.
    LibtorchError
        There is no libtorch that fits.
    ExecutionError
        libtorch refuses the model.

    Notes
    -----
    May be called from any thread; models are constructed one at a time, without the GIL. The first
    load of a process also loads libtorch, which takes about 0.2 s.

    After a fork, the child must load its models again: OpenMP's threads are not there any more, and
    a run may wait for them forever. Start processes by ``spawn`` or ``forkserver`` instead.
    """
    num_runners, device_index = operator.index(num_runners), operator.index(device_index)
    if num_runners < 1:
        raise ConfigError(f"num_runners must be at least 1, not {num_runners}")
    if single_threaded and num_runners > 1:
        raise ConfigError("a single-threaded model has one runner: leave num_runners at 1")
    with Package(path) as package:
        name = package.select(model_name)
        metadata = package.metadata(name)
        target = _target_device(package, metadata, device, device_index)
        source = package.source(name)
        core = _libtorch.core()
        # libtorch takes directories since 2.13; below, it gets an archive of the same files.
        as_zip = _libtorch.core_minor() < (2, 13)
        extraction = cache.extract(package, name, as_zip=as_zip)
    try:
        return AOTIModel(
            core,
            extraction,
            path=str(path),
            model_name=name,
            metadata=metadata,
            device=target,
            inputs=read_wrapper(source) if source else None,
            num_runners=num_runners,
            single_threaded=single_threaded,
        )
    except BaseException:
        extraction.release()
        raise


class AOTIModel:
    """A loaded model. Made by `aoti.load`, called as the exported module was called.

    Attributes
    ----------
    path : str
        Where the package was loaded from.
    model_name : str
        The model's name in the package.
    device : Device
        The device it runs on.
    metadata : dict of str to str
        What the exporter wrote about it.
    call_spec : tuple of str
        The input and the output treespec, as JSON.
    constant_fqns : tuple of str
        The fully qualified names of its constants.

    Notes
    -----
    All methods may be called from any number of threads. The GIL is released while a call waits
    for a runner and while the model runs. Outputs own their memory and outlive the model; one that
    shares memory with an input keeps that input alive.
    """

    def __init__(
        self,
        core: Any,
        extraction: Extraction,
        *,
        path: str,
        model_name: str,
        metadata: dict[str, str],
        device: Device,
        inputs: tuple[TensorSpec, ...] | None,
        num_runners: int,
        single_threaded: bool,
    ) -> None:
        self.path = path
        self.model_name = model_name
        self.metadata = metadata
        self.device = device
        self.num_runners = num_runners
        # Not this object's own method as the core's `repair`: that would make a cycle, and a
        # dropped model would keep its memory until the garbage collector comes by.
        self._signature = Signature(inputs)
        self._closed = False
        self._extraction = extraction
        self._loader: _core.Loader = core.Loader(
            str(extraction.path),
            model_name,
            single_threaded=single_threaded,
            num_runners=num_runners,
            device_index=-1 if device.index is None else device.index,
            inputs=self._signature.layouts(),
            repair=self._signature.repair,
        )
        self.call_spec = tuple(self._loader.call_spec)
        self.constant_fqns = tuple(self._loader.constant_fqns)
        self._run: Callable[[Sequence[Any]], list[NDArray[np.generic]]] = self._loader.run
        self._outputs: tuple[TensorSpec, ...] | None = None
        self._plan_calls()

    @staticmethod
    def load(path: str | os.PathLike[str], **options: Any) -> AOTIModel:
        """Load a model: `aoti.load` under another name, with the same options."""
        return load(path, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as the exported module was called.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the export, in the same structure, with numpy arrays for tensors.

        Returns
        -------
        object
            What the module returned, in the same structure, with numpy arrays for tensors.

        Raises
        ------
        InputError, InputTypeError
            The arguments are not what the model takes. Nothing has run.
        ExecutionError
            The model failed.
        ModelClosedError
            The model was closed.
        PackageError
            The exported structure holds a type that only the exporting program knows. `run` works.
        """
        return self._rebuild(self._run(self._flatten(args, kwargs)))

    def run(self, inputs: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Run on a flat sequence of arrays.

        Parameters
        ----------
        inputs : sequence of numpy.ndarray
            One array per tensor, in the order of the input treespec.

        Returns
        -------
        list of numpy.ndarray
            One array per tensor, in the order of the output treespec.

        Raises
        ------
        InputError, InputTypeError, ExecutionError, ModelClosedError
            As for a call.
        """
        _check_flat(inputs)
        return self._run(inputs)

    def boxed_run(self, inputs: list[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Run on a flat list of arrays and empty it, so that the caller holds none of them.

        The list is emptied even if the run fails.

        Parameters and errors are those of `run`.
        """
        if not isinstance(inputs, list):
            raise InputTypeError(f"boxed_run empties a list, and got {type(inputs).__name__}")
        taken = tuple(inputs)
        inputs.clear()
        return self._run(taken)

    def infer(self, inputs: Sequence[NDArray[np.generic]]) -> InferenceResult:
        """Run on a flat sequence of arrays and measure it. Parameters and errors as for `run`."""
        _check_flat(inputs)
        start = time.perf_counter_ns()
        outputs = self._run(inputs)
        latency_ms = (time.perf_counter_ns() - start) / 1e6
        return InferenceResult(outputs, latency_ms, memory_bytes=None)

    def get_metadata(self) -> dict[str, str]:
        """The attribute `metadata`, as the C++ loader's method is named."""
        return dict(self.metadata)

    def get_call_spec(self) -> list[str]:
        """The attribute `call_spec`, as the C++ loader's method is named."""
        return list(self.call_spec)

    def get_constant_fqns(self) -> list[str]:
        """The attribute `constant_fqns`, as the C++ loader's method is named."""
        return list(self.constant_fqns)

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """What the model takes, in flat order; None if the package does not tell."""
        return self._signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """What the model gives, in flat order, by name; None if the package does not tell.

        Dtypes and shapes are not known: packages do not record them.
        """
        return self._outputs

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Free the model, after the calls that are running have ended. Harmless the second time.

        Calls that wait for a runner, and later ones, raise `ModelClosedError`. The weights, the
        buffers and the extracted files are given back. The code of the model stays mapped until
        the process ends: its shared object holds unique symbols, which glibc never unloads.
        Loading the same package again uses that mapping.
        """
        self._closed = True
        self._loader.close()
        self._extraction.release()

    def __enter__(self) -> AOTIModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Only the files: the core frees the rest by itself.
        if (extraction := getattr(self, "_extraction", None)) is not None:
            extraction.release()

    def __reduce__(self) -> Any:
        raise TypeError("a loaded model cannot be copied or pickled; load it again from its path")

    def __repr__(self) -> str:
        if self._closed:
            return f"<aoti.AOTIModel {self.model_name!r} of {self.path}, closed>"
        takes = "unknown inputs"
        if self.inputs is not None:
            takes = ", ".join(f"{spec.name}: {spec}" for spec in self.inputs) or "no inputs"
        return f"<aoti.AOTIModel {self.model_name!r} of {self.path} on {self.device}: {takes}>"

    def _plan_calls(self) -> None:
        self._flatten: _Flatten
        self._rebuild: Callable[[Sequence[object]], object] = list
        try:
            plan = CallPlan.from_json(*self.call_spec)
        except PackageError as error:
            # The structure is unknown; flat runs need none.
            self._flatten = _refusal(str(error))
            return
        self._rebuild = plan.rebuild
        self._outputs = tuple(TensorSpec(name, None, None) for name in plan.output_names)
        if self.inputs is None or plan.num_inputs == len(self.inputs):
            self._flatten = plan.flatten
            self._signature.rename(plan.input_names, plan.input_paths)
        else:
            self._flatten = _tensors_only(plan, len(self.inputs), self.path)


def _tensors_only(plan: CallPlan, count: int, path: str) -> _Flatten:
    """A flatten function that leaves out the arguments that are no tensors.

    Their values were compiled in at the export, and the package says neither which they are nor
    what they were. So whatever is no array is ignored, and a warning says so once.
    """
    constant = (bool, int, float, complex, str, type(None))
    warned = False

    def flatten(args: tuple[object, ...], kwargs: dict[str, object]) -> Sequence[object]:
        nonlocal warned
        leaves = plan.flatten(args, kwargs)
        tensors = [leaf for leaf in leaves if type(leaf) not in constant]
        if len(tensors) != count:
            places = zip(leaves, plan.input_paths, strict=True)
            others = [place for leaf, place in places if type(leaf) in constant]
            raise InputError(
                f"the model takes {count} arrays, got {len(tensors)}; "
                f"no arrays: {', '.join(others) or 'none'}"
            )
        if not warned:
            warned = True
            warnings.warn(
                f"{path}: arguments that are no arrays had their values compiled in at the export, "
                "and the package does not record them: what is passed is ignored",
                stacklevel=3,
            )
        return tensors

    return flatten


def _target_device(
    package: Package, metadata: dict[str, str], device: str | Device | None, device_index: int
) -> Device:
    """The device to run on: of the package's type, with the number that was asked for."""
    compiled_for = metadata.get("AOTI_DEVICE_KEY")
    if not compiled_for:
        raise PackageError(f"{package.path} does not say what device it was compiled for")
    wanted = Device(device if device is not None else compiled_for)
    if wanted.type != compiled_for:
        raise IncompatiblePackageError(
            f"{package.path} was compiled for {compiled_for}, not for {wanted}; "
            f"load it with device={compiled_for!r} or export it for {wanted.type}"
        )
    if device_index < -1 or (wanted.type == "cpu" and device_index > 0):
        raise DeviceError(f"there is no {wanted.type} device number {device_index}")
    if wanted.index is not None and device_index not in (-1, wanted.index):
        raise DeviceError(f"device={str(wanted)!r} contradicts device_index={device_index}")
    if wanted.type != "cpu":
        raise IncompatiblePackageError(
            f"{package.path} was compiled for {compiled_for}; this version of aoti runs models on "
            "the CPU only: export it for the cpu"
        )
    return wanted


def _check_flat(inputs: object) -> None:
    if not isinstance(inputs, (list, tuple)):
        raise InputTypeError(
            f"run takes a list of arrays, one per input, and got {type(inputs).__name__}; "
            "call the model itself to pass arguments as at the export"
        )


def _refusal(reason: str) -> _Flatten:
    """A flatten function for a model that cannot be called, only run."""

    def flatten(_args: tuple[object, ...], _kwargs: dict[str, object]) -> Sequence[object]:
        raise PackageError(reason)

    return flatten
