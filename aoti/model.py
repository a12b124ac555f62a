"""Loading and calling models: the policy above the compiled core."""

from __future__ import annotations

import hmac
import operator
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aoti import _libtorch, preflight
from aoti.archive import Limits
from aoti.cache import extract
from aoti.checks import Checker, Flatten
from aoti.device import Device
from aoti.errors import (
    ConfigError,
    DeviceError,
    IncompatiblePackageError,
    InputError,
    InputTypeError,
    IntegrityError,
    PackageError,
)
from aoti.findings import require
from aoti.inputplan import InputPlan
from aoti.package import Package, Source
from aoti.signature import Signature
from aoti.spec import TensorSpec
from aoti.wrapper import read_num_constants

if TYPE_CHECKING:
    from types import TracebackType

    from aoti import _core
    from aoti.extraction import Extraction


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """What `AOTIModel.infer` gives.

    Attributes
    ----------
    outputs : list of arrays
        The outputs, flat, in the order of the output treespec.
    latency_ms : float
        Wall time of the call in milliseconds, waiting for a runner included.
    memory_bytes : int or None
        Peak memory of the call on the device; None on the CPU.
    """

    outputs: list[Any]
    latency_ms: float
    memory_bytes: int | None


def load(
    path: Source,
    *,
    model_name: str | None = None,
    device: str | Device | None = None,
    device_index: int = -1,
    num_runners: int = 1,
    single_threaded: bool = False,
    sha256: str | None = None,
    validate: bool = True,
    cache: bool = True,
    limits: Limits | None = None,
    outputs: str | None = None,
) -> AOTIModel:
    """Load a compiled model from a package.

    A package is native code that runs with your rights: load only what you would also execute.

    Parameters
    ----------
    path : str, os.PathLike, bytes, bytearray, memoryview or binary file
        A ``.pt2`` file made by ``aoti.export`` or ``torch._inductor.aoti_compile_and_package``,
        or a directory with the same content; or the content of such a file, in memory or as a
        seekable file object.
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
    sha256 : str, optional
        The digest that the package must have, in hex: that of the file (``sha256sum``), or
        `Package.digest` for a directory. It is verified before anything of the package is mapped.
    validate : bool, default True
        Check the arguments of each call. Without it, an argument that is not what the model takes
        reads out of bounds, gives garbage or ends the process.
    cache : bool, default True
        Share the extracted package with other processes, below ``AOTI_CACHE_DIR`` (by default the
        user's cache directory), and keep it for the next start. Without it, it is extracted to a
        private directory below ``TMPDIR``, which is gone when the model is closed.
    limits : Limits, optional
        How much the package may hold before it is refused.
    outputs : {'numpy', 'torch', 'jax', 'cupy', 'dlpack'}, optional
        The kind of arrays that come out; ``"dlpack"`` is `aoti.Tensor`. Default: the kind that
        went in, see `aoti.kinds`. A library must have been imported before its kind is asked for.

    Returns
    -------
    AOTIModel

    Raises
    ------
    PackageNotFoundError, PackageError, ModelNotFoundError
        The package is missing, damaged, or does not hold the model.
    IntegrityError
        Its digest is another one than `sha256`.
    IncompatiblePackageError
        It was compiled for another device than is asked for, or for one that this version does not
        run models on: anything but the CPU. Or it wants what this machine or this libtorch does
        not have: see `aoti check`.
    DeviceError
        The device is not spelled right or contradicts `device_index`.
    ConfigError
        `num_runners` is less than 1, or more than a single-threaded model has; the place for
        extracted packages cannot be used; or there is no such kind of `outputs`.
    LibtorchError
        There is no libtorch that fits.
    ExecutionError
        libtorch refuses the model.

    Warns
    -----
    UserWarning
        The package does not tell what it takes, so that calls cannot be checked.

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
    with Package(path, limits=limits or Limits()) as package:
        verified = None if sha256 is None else _verified_digest(package, sha256)
        name = package.select(model_name)
        metadata = package.metadata(name)
        wanted = None if device is None else Device(device)
        require(preflight.check_machine(metadata, wanted))
        target = _target_device(metadata["AOTI_DEVICE_KEY"], wanted, device_index)
        signature = package.signature(name)
        if signature.inputs is None:
            warnings.warn(
                f"{package.name} does not tell what it takes (its generated C++ was stripped): "
                "what is passed cannot be checked, and a wrong array is undefined behaviour; "
                "packages that aoti.export wrote do",
                stacklevel=2,
            )
        core = _libtorch.core()
        # libtorch takes directories since 2.13; below, it gets an archive of the same files.
        as_zip = _libtorch.core_minor() < (2, 13)
        extraction = extract(package, name, as_zip=as_zip, shared=cache, verified=verified)
        try:
            _check_code(package, name, core, extraction, shared=cache)
        except BaseException:
            extraction.release()
            raise
    try:
        return AOTIModel(
            core,
            extraction,
            path=package.name,
            model_name=name,
            metadata=metadata,
            device=target,
            signature=signature,
            num_runners=num_runners,
            single_threaded=single_threaded,
            validate=validate,
            outputs=outputs,
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
    signature : Signature
        What it takes and gives.
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
        signature: Signature,
        num_runners: int,
        single_threaded: bool,
        validate: bool,
        outputs: str | None,
    ) -> None:
        self.path = path
        self.model_name = model_name
        self.metadata = metadata
        self.device = device
        self.num_runners = num_runners
        self._closed = False
        self._extraction = extraction
        layouts = signature.layouts()
        # Not this object's own methods as what the core calls: that would make a cycle, and a
        # dropped model would keep its memory until the garbage collector comes by.
        checker = Checker(signature, package=self.path)
        self._loader: _core.Loader = core.Loader(
            str(extraction.path),
            model_name,
            single_threaded=single_threaded,
            num_runners=num_runners,
            device_index=-1 if device.index is None else device.index,
            inputs=layouts and layouts[0],
            ranges=layouts[1] if layouts else (),
            ranges_hold=signature.enforced,
            validate=validate,
            repair=checker.repair,
            refuse_values=checker.refuse_values,
            outputs=outputs,
        )
        self.call_spec = tuple(self._loader.call_spec)
        self.constant_fqns = tuple(self._loader.constant_fqns)
        self._run: Callable[[Sequence[Any]], list[Any]] = self._loader.run
        self._explain = checker.explain
        self._flatten: Flatten
        self._rebuild: Callable[[Sequence[object]], object] = list
        self._flatten_result: Callable[[Any], list[object]] = list
        # What __call__ keeps for itself, unless the module has an argument of that name.
        self._options = frozenset(("out", "outputs"))
        try:
            plan = signature.plan((self.call_spec[0], self.call_spec[1]))
        except PackageError as error:
            # The structure is unknown; flat runs need none.
            self._flatten = _refusal(str(error))
        else:
            self._flatten = checker.plan_calls(plan)
            self._rebuild = plan.rebuild
            self._flatten_result = plan.flatten_result
            self._options -= plan.keywords
        self.signature = checker.signature

    @staticmethod
    def load(path: Source, **options: Any) -> AOTIModel:
        """Load a model: `aoti.load` under another name, with the same options."""
        return load(path, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as the exported module was called.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the export, in the same structure, with arrays for tensors: of numpy,
            torch, jax, cupy, or anything with ``__dlpack__``, ``__array_interface__`` or the
            buffer protocol.
        out : optional
            Arrays for the outputs to be written to, in the structure of the result, with None for
            those that shall be new: numpy arrays, torch tensors or `aoti.Tensor`. What the model
            computes is copied there; nothing is written unless all fit.
        outputs : str, optional
            The kind of the outputs of this call: see `load`.

            Where the module itself has an argument named ``out`` or ``outputs``, that is what the
            name means; `run` takes the option then.

        Returns
        -------
        object
            What the module returned, in the same structure, with arrays for tensors, of the kind
            that went in.

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
        if kwargs and not self._options.isdisjoint(kwargs):
            options = {name: kwargs.pop(name) for name in self._options & kwargs.keys()}
            if (out := options.get("out")) is not None:
                options["out"] = self._flatten_result(out)
            return self._rebuild(self._loader.run_to(self._flatten(args, kwargs), **options))
        return self._rebuild(self._run(self._flatten(args, kwargs)))

    def plan(self, *args: Any, **kwargs: Any) -> list[InputPlan]:
        """What a call with these arguments would do with each input; runs nothing.

        Parameters are those of a call, without `out` and `outputs`.

        Returns
        -------
        list of InputPlan
            Per input, in flat order: whether its memory is shared, or why it is copied or refused.

        Raises
        ------
        InputError, InputTypeError
            The structure or the number of arguments is not that of the export.
        """
        leaves = self._flatten(args, kwargs)
        return self._explain(leaves, self._loader.examine(leaves))

    def bind(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """Fix the inputs, and with `out` the outputs: a callable for the tightest loops.

        Parameters
        ----------
        *args, **kwargs
            As for a call, `out` and `outputs` among them. Each run reads what the arrays then
            hold. They must be such that their memory can be shared: see `plan`.

        Returns
        -------
        callable
            Without parameters. Gives what a call gives; with `out`, always the same object. It
            keeps the model and the arrays. May be called from several threads, which then write
            to the same `out`.

        Raises
        ------
        InputError, InputTypeError
            As for a call, or an input would have to be copied. When it is called: an index in an
            input is out of range, or a torch tensor was given other memory.
        """
        chosen = {name: kwargs.pop(name) for name in self._options & kwargs.keys()}
        out = chosen.get("out")
        leaves = self._flatten(args, kwargs)
        for plan in self._explain(leaves, self._loader.examine(leaves)):
            if plan.action == "copied":
                raise InputError(
                    f"{plan.path}: a bound input is read at each call, and this one would be "
                    f"copied once: {plan.reason}; pass an array that can be shared"
                )
        return self._loader.bind(
            leaves,
            None if out is None else self._flatten_result(out),
            self._rebuild,
            chosen.get("outputs"),
            self,
        )

    def run(
        self,
        inputs: Sequence[Any],
        *,
        outputs: str | None = None,
        out: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Run on a flat sequence of arrays.

        Parameters
        ----------
        inputs : sequence of arrays
            One per tensor, in the order of the input treespec.
        outputs : str, optional
            The kind of the outputs of this call: see `load`.
        out : sequence of arrays or None, optional
            Where to write the outputs, one per output, None for a new array.

        Returns
        -------
        list of arrays
            One per tensor, in the order of the output treespec, of the kind that went in.

        Raises
        ------
        InputError, InputTypeError, ExecutionError, ModelClosedError
            As for a call.
        """
        _check_flat(inputs)
        if outputs is None and out is None:
            return self._run(inputs)
        return self._loader.run_to(inputs, outputs, out)

    def boxed_run(self, inputs: list[Any]) -> list[Any]:
        """Run on a flat list of arrays and empty it, so that the caller holds none of them.

        The list is emptied even if the run fails. An array that nobody else holds is freed as soon
        as the model is done with it, in the middle of the run; one that is read-only, at its end.

        Parameters and errors are those of `run`.
        """
        if not isinstance(inputs, list):
            raise InputTypeError(f"boxed_run empties a list, and got {type(inputs).__name__}")
        return self._loader.run_boxed(inputs)

    def infer(self, inputs: Sequence[Any]) -> InferenceResult:
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
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """What the model gives, in flat order; None if the package does not tell.

        Dtypes and shapes are None where the package does not record them: `aoti.export` does.
        """
        return self.signature.outputs

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


def _check_code(
    package: Package, name: str, core: Any, extraction: Extraction, *, shared: bool
) -> None:
    """Refuse code that would not load, or would crash, before any of it is mapped."""
    files = extraction
    if extraction.path.is_file():
        files = extract(package, name, as_zip=False, shared=shared, verified=extraction.digest)
    directory = files.path / "data/aotinductor" / name
    try:
        findings = preflight.check_files(
            directory, lambda: read_num_constants(package.source(name) or "")
        )
        require(findings)
        require(preflight.check_libtorch(directory, _libtorch.library(), core.has_operator))
    finally:
        if files is not extraction:
            files.release()


def _verified_digest(package: Package, sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"sha256 is 64 hexadecimal digits, and not {sha256!r:.80}")
    if not hmac.compare_digest(digest := package.digest, sha256.lower()):
        raise IntegrityError(
            f"{package.name} is not the package that was asked for: its SHA-256 is {digest}, "
            f"not {sha256.lower()}; get it again from where you trust"
        )
    return digest


def _target_device(compiled_for: str, wanted: Device | None, device_index: int) -> Device:
    """The device to run on: of the package's type, with the number that was asked for."""
    device = wanted or Device(compiled_for)
    if device_index < -1 or (device.type == "cpu" and device_index > 0):
        raise DeviceError(f"there is no {device.type} device number {device_index}")
    if device.index is not None and device_index not in (-1, device.index):
        raise DeviceError(f"device={str(device)!r} contradicts device_index={device_index}")
    if device.type == "cpu":
        return device
    if device.index is None and device_index >= 0:
        device = Device(f"{device.type}:{device_index}")
    raise IncompatiblePackageError(
        f"the package was compiled for {compiled_for}; this version of aoti runs models on the "
        f"CPU only, and not on {device}: export it for the cpu"
    )


def _check_flat(inputs: object) -> None:
    if not isinstance(inputs, (list, tuple)):
        raise InputTypeError(
            f"run takes a list of arrays, one per input, and got {type(inputs).__name__}; "
            "call the model itself to pass arguments as at the export"
        )


def _refusal(reason: str) -> Flatten:
    """A flatten function for a model that cannot be called, only run."""

    def flatten(_args: tuple[object, ...], _kwargs: dict[str, object]) -> Sequence[object]:
        raise PackageError(reason)

    return flatten
