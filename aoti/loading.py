"""Loading models: from a package, through all checks, to something that can be called."""

from __future__ import annotations

import functools
import hmac
import operator
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aoti import _logging
from aoti.cache.cache import configure as configure_cache
from aoti.cache.cache import extract
from aoti.compat.check import check_package
from aoti.compat.finding import require
from aoti.compat.libtorch import stands_on_libtorch
from aoti.compat.platform import check_machine
from aoti.config import Config
from aoti.engine import libtorch
from aoti.engine.devices import start_device
from aoti.errors import ConfigError, DeviceError, IncompatiblePackageError, IntegrityError
from aoti.golden import Golden
from aoti.machine.device import Device
from aoti.model import AOTIModel, class_over
from aoti.package.archive import Limits
from aoti.package.package import Package, Source
from aoti.registry import resolve
from aoti.signature import example_inputs
from aoti.weights.model_weights import Source as WeightSource

if TYPE_CHECKING:
    from aoti.cache.extraction import Extraction


Load = TypeVar("Load", bound=Callable[..., Any])


def by_name(load: Load) -> Load:
    """Let a function that loads a package take names of models and configurations too.

    What is decorated gets a package, and never those. Options of the call go over those of a
    configuration, and these over those that a registered model brings.
    """

    @functools.wraps(load)
    def load_source(path: Source | Config, **options: Any) -> Any:
        if _logging.debugging():
            _logging.show("debug")
        if isinstance(path, Config):
            if path.model is None:
                raise ConfigError("the configuration names no model: set model, or AOTI_MODEL")
            configure_cache(directory=path.cache_dir, size=path.cache_size)
            if path.logging_level is not None:
                _logging.show(path.logging_level)
            options = {**path.options, **options}
            path = path.model
        if (model := resolve(path)) is not None:
            _logging.logger.info("%s is %s, from %s", path, model.path, model.place)
            options = {**model.options, **options}
            path = model.path
        start = time.perf_counter()
        model = load(path, **options)
        duration = time.perf_counter() - start
        _logging.logger.info("loaded %s on %s in %.0f ms", model.path, model.device, duration * 1e3)
        return model

    return cast("Load", load_source)


@by_name
def load(
    path: Source | Config,
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
    intra_op_threads: int | None = None,
    queue_size: int = 1024,
    timeout: float | None = None,
    self_test: bool = False,
    weights: WeightSource | None = None,
    map_source: bool = False,
    warmup: bool | Sequence[Any] = False,
    stream: Any = None,
) -> AOTIModel:
    """Load a compiled model from a package.

    A package is native code that runs with your rights: load only what you would also execute.

    Parameters
    ----------
    path : str, os.PathLike, bytes, bytearray, memoryview, binary file or Config
        A ``.pt2`` file made by ``aoti.export`` or ``torch._inductor.aoti_compile_and_package``,
        or a directory with the same content; or the content of such a file, in memory or as a
        seekable file object. Or the name of a registered model (see `aoti.models`), ``"minilm"``
        or ``"minilm@2.1"``; or an `aoti.Config`.
    model_name : str, optional
        Which model of the package; needed only where it holds several.
    device : str or Device, optional
        The device to run on. It must be of the type that the package was compiled for, which is
        also the default. Nothing falls back to another device.
    device_index : int, default -1
        The number of the device, where `device` has none; -1 is the CPU or the current device,
        which the model then stays on.
    num_runners : int, default 1
        How many calls may run at the same time. Each runner has its own intermediate buffers; the
        weights are shared. Further calls wait their turn, without the GIL. One is best for the
        latency of a call, which then has all cores; for the throughput of many small calls, as many
        as there are cores, with one `intra_op_threads` each. Keep the product of the two at or
        below the number of cores.
    single_threaded : bool, default False
        Load without the locks of libtorch's container, which CUDA graphs need (but not around the
        first run with new weights, where those are folded at run time). Calls then exclude
        each other, so `num_runners` must be 1. On the CPU, models with up to 1 MiB of weights
        mostly run without those locks anyway, each runner on a container of its own.
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
        went in. numpy gives way to the others; where several others are mixed, the first decides.
        A library must have been imported before its kind is asked for.
    intra_op_threads : int, optional
        How many OpenMP threads a run may use, the calling one included. By default what OpenMP has
        for the calling thread: ``OMP_NUM_THREADS``, or one per core. Kernels whose number was
        compiled in do not keep to it, only libtorch's operators then do: see `Package.threads`.
    queue_size : int, default 1024
        How many calls by `AOTIModel.submit` and `AOTIModel.run_async` may wait.
    timeout : float, optional
        Seconds that a `AOTIModel.run_async` may take, waiting included.
    self_test : bool, default False
        Run the golden values that the exporter kept in the package (``golden=True``), and refuse a
        model that does not give them on this machine.
    weights : mapping of str to array, or path, optional
        Weights in place of the package's own: arrays by their fully qualified names, or a
        ``.safetensors`` file. All parameters must be there: see `AOTIModel.load_constants`. So one
        package, which may come without weights, serves many checkpoints.
    map_source : bool, default False
        Map the file of the weights itself instead of a copy of its content: that of `weights`, or
        else the package, where it has its weights as they are used (``binary_blob``, not
        compressed). Their checksum is verified when the package is first extracted, and no copy of
        them is made in the cache. If somebody cuts the file short or changes it, the process ends
        or computes something else: replace such files, never write to them. Without it, a
        package's own weights are mapped from the private copy in the cache.
    warmup : bool or sequence of arrays, default False
        Run once before returning, so that the first call is as fast as the others: on these flat
        inputs, or with True on zeros in the smallest sizes that the model takes. Mapped weights
        are then read in.
    stream : optional
        Of a model on a GPU: the stream that all calls run on, which must outlive the model. Its
        handle as an int, a torch or cupy stream, or what has ``__cuda_stream__``. Default: the
        stream that is current in the calling thread, ``torch.cuda.current_stream()``, so that
        calls keep their order with what torch computes. With another stream, torch tensors are
        taken as they are on it; arrays of other libraries are waited for, on the device.

    Returns
    -------
    AOTIModel

    Raises
    ------
    PackageNotFoundError, PackageError, ModelNotFoundError
        The package is missing, damaged, or does not hold the model.
    AmbiguousModelError
        The name stands for several models.
    IntegrityError
        Its digest is another one than `sha256`.
    IncompatiblePackageError
        It was compiled for another device than is asked for, or for one that this version does not
        run models on. Or it wants what this machine or this libtorch does not have: see
        `aoti check`.
    DeviceError
        The device is not spelled right, contradicts `device_index`, or cannot be used.
    ConstantError
        A weight is missing or unknown, or of another dtype or shape than the model takes.
    ConfigError
        `warmup` is True, and the package does not tell what inputs the model takes;
        `num_runners` is less than 1, or more than a single-threaded model has; `intra_op_threads`,
        `queue_size` or `timeout` is too small; there is no such kind of `outputs`; `stream` is
        none, or of another device; or the place for extracted packages cannot be used.
    LibtorchError
        There is no libtorch that fits, or this build of aoti is not for GPUs.
    ExecutionError
        libtorch refuses the model.
    SelfTestError
        The model does not give its golden values here.

    Warns
    -----
    UserWarning
        The package does not tell what it takes, so that calls cannot be checked.

    Notes
    -----
    May be called from any thread; models are constructed one at a time, without the GIL. The first
    load of a process also loads libtorch, which takes about 0.2 s.

    OpenMP keeps a team of threads for every thread that runs models, and one number of threads for
    each: ``torch.set_num_threads`` in the main thread, or ``omp_set_num_threads``, say nothing to
    the others. `intra_op_threads` holds in all of them, for the length of a run.

    A child process made by `os.fork` can load and run models, and go on with its parent's, if
    nothing runs at the fork. A run in another thread may hold locks that nobody lets go of in the
    child, so after that every run in the child raises ExecutionError. The fork waits for a load
    that is under way. OpenMP's threads do not survive it, so the forking thread's are dismissed
    before, and made anew when they are next needed. Where OpenMP cannot do that (GCC's before
    version 9), a run in the child's main thread raises ExecutionError if the parent had run models
    in it. Start processes by ``spawn`` or ``forkserver`` where you can.
    """
    num_runners, device_index = operator.index(num_runners), operator.index(device_index)
    _check_numbers(num_runners, intra_op_threads, queue_size, timeout, alone=single_threaded)
    options: dict[str, Any] = {
        "device": None if device is None else str(device),
        "device_index": device_index,
        "num_runners": num_runners,
        "single_threaded": single_threaded,
        "validate": validate,
        "cache": cache,
        "limits": limits,
        "outputs": outputs,
        "intra_op_threads": intra_op_threads,
        "queue_size": queue_size,
        "self_test": self_test,
    }
    with Package(cast("Source", path), limits=limits or Limits()) as package:
        verified = None if sha256 is None else _verified_digest(package, sha256)
        name = package.select(model_name)
        origin = None
        if package.path is not None and not isinstance(weights, Mapping):
            if weights is not None:
                options["weights"] = str(Path(weights).absolute())
            if map_source:
                options["map_source"] = True
            if stream is None:  # which no other process has
                origin = (str(package.path.absolute()), {**options, "model_name": name})
        metadata = package.metadata(name)
        wanted = None if device is None else Device(device)
        require(check_machine(metadata, wanted))
        target = _target_device(metadata["AOTI_DEVICE_KEY"], wanted, device_index)
        signature = package.signature(name)
        golden = Golden.of(package, name) if self_test else None
        core = libtorch.core()
        target = start_device(target)
        # libtorch takes directories since 2.13; below, it gets an archive of the same files.
        as_zip = libtorch.core_minor() < (2, 13)
        extracted = partial(
            extract,
            package,
            name,
            shared=cache,
            verified=verified,
            map_source=map_source and weights is None,
        )
        extraction = extracted(as_zip=as_zip)
        try:
            _check_code(package, name, core, extraction, target, extracted)
            if signature.inputs is None:
                _warn_unchecked(package)
        except BaseException:
            extraction.release()
            raise
    try:
        model = class_over(core)(
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
            intra_op_threads=intra_op_threads,
            queue_size=queue_size,
            timeout=timeout,
            origin=origin,
            weights=weights,
            map_source=map_source,
            stream=stream,
            may_keep_gil=not as_zip
            and stands_on_libtorch(extraction.code(name), libtorch.library()),
        )
    except BaseException:
        extraction.release()
        raise
    try:
        if golden is not None:
            golden.require(model)
        if warmup is not False:
            warm_up(model, None if warmup is True else warmup)
    except BaseException:
        model.close()
        raise
    return model


def _check_numbers(
    num_runners: int,
    intra_op_threads: int | None,
    queue_size: int,
    timeout: float | None,
    *,
    alone: bool,
) -> None:
    if num_runners < 1:
        raise ConfigError(f"num_runners must be at least 1, not {num_runners}")
    if alone and num_runners > 1:
        raise ConfigError("a single-threaded model has one runner: leave num_runners at 1")
    if intra_op_threads is not None and operator.index(intra_op_threads) < 1:
        raise ConfigError(f"intra_op_threads must be at least 1, not {intra_op_threads}")
    if operator.index(queue_size) < 1:
        raise ConfigError(f"queue_size must be at least 1, not {queue_size}")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout is a number of seconds above 0, and not {timeout}")


def _warn_unchecked(package: Package) -> None:
    warnings.warn(
        f"{package.name} does not tell what it takes (its generated C++ was stripped): what is "
        "passed cannot be checked, and a wrong array is undefined behaviour; packages that "
        "aoti.export wrote do",
        stacklevel=4,
    )


def _check_code(
    package: Package,
    name: str,
    core: Any,
    extraction: Extraction,
    device: Device,
    extracted: Callable[..., Extraction],
) -> None:
    """Refuse code that would not load, or would crash, before any of it is mapped."""
    files = extraction
    if extraction.path.is_file():
        files = extracted(as_zip=False, verified=extraction.digest)
    library = libtorch.library()
    try:
        require(
            check_package(
                package, name, files, device, library=library, has_operator=core.has_operator
            )
        )
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
    if device.type not in ("cpu", "cuda"):
        raise IncompatiblePackageError(
            f"the package was compiled for {compiled_for}; this version of aoti runs models on the "
            f"CPU and on GPUs of CUDA and ROCm, and not on {device}: export it for one of those"
        )
    if device.index is None and device_index >= 0 and device.type != "cpu":
        return Device(f"{device.type}:{device_index}")
    return device


def warm_up(model: AOTIModel, inputs: Sequence[Any] | None) -> None:
    """Read in mapped weights and run once: threads are started, symbols bound, pages there.

    Parameters
    ----------
    model : AOTIModel
        A model that nothing runs on yet.
    inputs : sequence of arrays, or None
        For a flat run. None: zeros, or the least value that an index may have, in the smallest
        sizes that the model takes.

    Raises
    ------
    ConfigError
        There are no inputs, and the package does not tell what the model takes.
    InputError, ExecutionError, ConstantError
        As for a run.
    """
    model._weights.populate()
    if inputs is None:
        try:
            inputs = example_inputs.zeros(model.signature)
        except ConfigError as error:
            raise ConfigError(
                f"warmup=True: {model.path}: {error}; pass warmup= a list of arrays for a flat run"
            ) from error
    model.run(inputs)
