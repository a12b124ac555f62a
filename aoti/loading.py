"""Loading models: from a source, through all checks, to a model that can be called."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aoti import _logging, _warnings
from aoti.cache.cache import configure as configure_cache
from aoti.cache.cache import extract
from aoti.cache.extraction import unpacked_form
from aoti.compat.check import check_package
from aoti.compat.finding import require
from aoti.compat.platform import check_machine
from aoti.config import Config, looks_like_a_path
from aoti.engine.select import choose
from aoti.errors import (
    ConfigError,
    DeviceError,
    IncompatiblePackageError,
    IntegrityError,
    PackageError,
)
from aoti.machine.device import Device
from aoti.model import AOTIModel
from aoti.options import LoadOptions, merged, takes
from aoti.package.archive import Limits
from aoti.package.package import Package, Source
from aoti.signature import example_inputs

if TYPE_CHECKING:
    from aoti.cache.extraction import Extraction, Form
    from aoti.golden import Golden
    from aoti.package.elf import SharedObject


@takes(LoadOptions)
def load(source: Source | Config, **options: Any) -> AOTIModel:
    """Load a compiled model from a package.

    A package is native code that runs with your rights: load only what you would also execute.

    Parameters
    ----------
    source : str, os.PathLike, bytes, bytearray, memoryview, binary file or Config
        A ``.pt2`` file made by ``aoti.export`` or ``torch._inductor.aoti_compile_and_package``,
        or a directory with the same content; or the content of such a file, in memory or as a
        seekable file object. Or the name of a registered model (see `aoti.models`), ``"minilm"``
        or ``"minilm@2.1"``; or an `aoti.Config`.
        A file is taken for the one that was hashed earlier if its inode, size and times are the
        same. A program that changes the file through a shared mapping changes its times later.
        Replace packages by a rename, or give `sha256`: every load then reads the file.
    model_name : str, optional
        Which model of the package; needed only if the package holds several.
    device : str or Device, optional
        The device to run on. It must be of the type that the package was compiled for, which is
        also the default. Nothing falls back to another device.
    device_index : int, default -1
        The number of the device, if `device` has none; -1 is the CPU or the current device, on
        which the model then stays.
    engine : {'auto', 'native', 'libtorch'}, optional
        What runs the model. ``native``: aoti's own engine, for the CPU, which needs no libtorch.
        ``libtorch``: the engine over libtorch, which runs every package. ``auto``: the native
        engine wherever it has every function that the package calls, else libtorch. Default: the
        environment variable ``AOTI_ENGINE``, or ``auto``. `AOTIModel.engine` says which one it is,
        which never changes. See docs/engines.md.
    num_runners : int, default 1
        How many calls may run at the same time. Each runner has its own intermediate buffers; the
        weights are shared. Further calls wait their turn, without the GIL. One runner gives the
        best latency: each call has all cores. For the throughput of many small calls, use as many
        runners as there are cores, with one `intra_op_threads` each. Keep the product of the two
        at or below the number of cores.
    single_threaded : bool, default False
        Load without the locks of libtorch's container. CUDA graphs need this, except around the
        first run with new weights if those are folded at run time. Calls then exclude each other,
        so `num_runners` must be 1. On the CPU, models with up to 1 MiB of weights usually run
        without those locks anyway: each runner then has its own container.
    sha256 : str, optional
        The digest that the package must have, in hex: that of the file (``sha256sum``), or
        `Package.digest` for a directory. It is verified before anything of the package is mapped.
        Only the bytes that were hashed are extracted. The content of files that were extracted
        earlier is compared with what was extracted then. The files of an unpacked directory, and
        weights with `map_source`, are mapped where they are, and must not change after the check.
    validate : bool, default True
        Check the arguments of each call. Without these checks, a wrong argument reads out of
        bounds, gives garbage or ends the process.
    cache : bool, default True
        Share the extracted package with other processes, below ``AOTI_CACHE_DIR`` (by default the
        user's cache directory), and keep it for the next start. Without it, the package is
        extracted to a private directory below ``TMPDIR``, which is removed when the model is
        closed.
    limits : Limits, optional
        How much the package may hold before it is refused.
    outputs : {'numpy', 'torch', 'jax', 'cupy', 'dlpack'}, optional
        The library of the arrays that come out; ``"dlpack"`` is `aoti.Tensor`. Default: that of
        the inputs. If inputs mix libraries, the first one that is not numpy determines the output
        type. A library must have been imported before its arrays are asked for.
    intra_op_threads : int, optional
        How many OpenMP threads a run may use, including the calling one. The default is that of
        OpenMP for the calling thread: ``OMP_NUM_THREADS``, or one per core. Kernels with a
        compiled-in number of threads ignore this option, which then applies to libtorch's
        operators only: see `Package.threads`.
    queue_size : int, default 1024
        How many calls of `AOTIModel.submit` and `AOTIModel.run_async` may wait.
    batching : Batching, optional
        Join such calls into fewer, larger runs, for models on the CPU: see `Batching`.
    timeout : float, optional
        Seconds that a `AOTIModel.run_async` may take, including the time it waits.
    self_test : bool, default False
        Run the golden values that the exporter stored in the package (``golden=True``), and refuse
        a model that does not reproduce them on this machine.
    weights : mapping of str to array, or path, optional
        Weights in place of the package's own: arrays by their fully qualified names, or a
        ``.safetensors`` file. All parameters must be given: see `ModelWeights.load`. One package,
        which may contain no weights, can so serve many checkpoints.
    map_source : bool, default False
        Map the file of the weights itself instead of a copy of its content: the file of `weights`,
        or else the package, if it stores its weights as they are used (``binary_blob``, not
        compressed). Their checksum is verified when the package is first extracted, and no copy of
        them is made in the cache. If the file is truncated or changed, the process ends or
        computes something else: replace such files, never write to them. Without this option, a
        package's own weights are mapped from the private copy in the cache.
    warmup : bool or sequence of arrays, default False
        Run once before returning, so that the first call is as fast as the others: on these flat
        inputs, or if True, on zeros in the smallest sizes that the model accepts. Mapped weights
        are read into memory, too.
    stream : optional
        For a model on a GPU: the stream of all calls, which must outlive the model. Its handle as
        an int, a torch or cupy stream, or an object with ``__cuda_stream__``. Default: the stream
        that is current in the calling thread, ``torch.cuda.current_stream()``, so that calls keep
        their order with what torch computes. With another stream, torch tensors are read on it
        without waiting; arrays of other libraries are waited for, on the device.

    Returns
    -------
    AOTIModel

    Raises
    ------
    PackageNotFoundError, PackageError, ModelNotFoundError
        The package is missing or damaged, or does not contain the model.
    AmbiguousModelError
        The name matches several models.
    IntegrityError
        The digest of the package is not `sha256`.
    IncompatiblePackageError
        The package was compiled for another device than `device`, or for one on which this version
        does not run models. Or it needs something that this machine or this libtorch does not
        have: see `aoti check`.
    DeviceError
        The device is misspelled, contradicts `device_index`, or cannot be used.
    ConstantError
        A weight is missing or unknown, or has another dtype or shape than the model's constant.
    ConfigError
        `warmup` is True, and the package does not describe its inputs; `num_runners` is less than
        1, or more than 1 for a single-threaded model; `intra_op_threads`, `queue_size` or
        `timeout` is too small; calls cannot be joined as `batching` says; `outputs` is not one of
        the libraries; `stream` is not a stream, or belongs to another device; or the directory for
        extracted packages cannot be used.
    LibtorchError
        No libtorch that fits was found, or this build of aoti does not support GPUs.
    ExecutionError
        libtorch refuses the model.
    SelfTestError
        The model does not reproduce its golden values here.

    Warns
    -----
    UserWarning
        The package does not describe its inputs, so that calls cannot be checked.

    Notes
    -----
    This function may be called from any thread; models are constructed one at a time, without the
    GIL. The first load of a process also loads libtorch, which takes about 0.2 s.

    OpenMP keeps a team of threads for every thread that runs models, and a separate number of
    threads for each: ``torch.set_num_threads`` or ``omp_set_num_threads`` in the main thread does
    not affect the other threads. `intra_op_threads` applies in all of them, during a run.

    A child process made by `os.fork` can load and run models, and go on with those of its parent,
    if no model was running at the fork. A run in another thread may hold locks that are never
    released in the child, so every run in the child then raises ExecutionError. The fork waits for
    a load that is under way. OpenMP's threads do not survive a fork: those of the forking thread
    are stopped before it, and started again when they are next needed. If OpenMP cannot stop them
    (GCC's before version 9), a run in the child's main thread raises ExecutionError if the parent
    had run models in it. Start processes by ``spawn`` or ``forkserver`` where you can.
    """
    if _logging.debugging():
        _logging.show("debug")
    if isinstance(source, Config):
        _configure_process(source)
    start = time.perf_counter()
    model = _load(*resolve(source, options))
    duration = time.perf_counter() - start
    _logging.logger.info("loaded %s on %s in %.0f ms", model.path, model.device, duration * 1e3)
    return model


def _configure_process(config: Config) -> None:
    """Apply the settings of a configuration that are about the process, not about a model."""
    configure_cache(directory=config.cache_dir, size=config.cache_size)
    if config.logging_level is not None:
        _logging.show(config.logging_level)


def resolve(source: Source | Config, options: Mapping[str, Any]) -> tuple[Source, LoadOptions]:
    """Find the package that a source means, and the options to load it with.

    The caller's options win over those of a configuration, and both win over those of a
    registered model.

    Raises
    ------
    ConfigError
        The configuration does not name a model, or an option cannot be used.
    PackageNotFoundError, AmbiguousModelError
        As `aoti.registry.resolve`.
    """
    layers = [options]
    if isinstance(source, Config):
        if source.model is None:
            raise ConfigError("the configuration names no model: set model, or AOTI_MODEL")
        layers.append(source.options)
        source = source.model
    if isinstance(source, str) and not looks_like_a_path(source):
        from aoti.registry import resolve as registered  # few loads need it

        if (model := registered(source)) is not None:
            _logging.logger.info("%s is %s, from %s", source, model.path, model.place)
            layers.append(model.options)
            source = model.path
    return source, merged(*reversed(layers))


def _load(source: Source, options: LoadOptions) -> AOTIModel:
    with Package(source, limits=options.limits or Limits()) as package:
        verified = options.sha256 and _verified_digest(package, options.sha256)
        name = package.select(options.model_name)
        metadata = package.metadata(name)
        wanted = None if options.device is None else Device(options.device)
        require(check_machine(metadata, wanted))
        target = _target_device(metadata["AOTI_DEVICE_KEY"], wanted, options.device_index)
        signature = package.signature(name)
        golden = _golden_values(package, name) if options.self_test else None
        asked = wanted_engine(package, options.engine)
        choice = choose(_code(package, name, asked), target, asked)
        engine = choice.load()
        form: Form = choice.form
        if choice.name == "libtorch":
            target, form = _start_libtorch(target)
        extracted = functools.partial(
            extract,
            package,
            name,
            shared=options.cache,
            verified=verified,
            map_source=options.map_source and options.weights is None,
        )

        def build(extraction: Extraction) -> AOTIModel:
            check_code(package, name, extraction, target, choice.name, extracted)
            if signature.inputs is None:
                _warn_unchecked(package)
            return AOTIModel(
                engine,
                extraction,
                engine_name=choice.name,
                path=package.name,
                model_name=name,
                metadata=metadata,
                device=target,
                signature=signature,
                options=options,
                reload=_reload(package, name, options),
                may_keep_gil=_may_keep_gil(form, extraction.code(name)),
            )

        model = _from_files(
            functools.partial(extracted, form=form), build, compare=bool(options.sha256)
        )
    try:
        if golden is not None:
            golden.require(model)
        if options.warmup is not False:
            model.weights.populate()
            model.run(_warmup_inputs(options.warmup, model))
    except BaseException:
        model.close()
        raise
    return model


def _start_libtorch(device: Device) -> tuple[Device, Form]:
    """Start a device of libtorch: its number, and the form of the files that libtorch takes."""
    from aoti.engine import libtorch  # most models run without it
    from aoti.engine.devices import start_device

    # libtorch takes directories since 2.13; below, it gets an archive of the same files.
    return start_device(device), "dir" if libtorch.minor() >= (2, 13) else "zip"


def _may_keep_gil(form: Form, code: Path) -> bool:
    """Whether short runs may keep the GIL: no code of others runs in them."""
    if form != "dir":
        return form == "native"
    from aoti.compat.libtorch import stands_on_libtorch  # most models run without libtorch
    from aoti.engine import libtorch

    return stands_on_libtorch(code, libtorch.library())


def _from_files(
    extracted: Callable[..., Extraction], build: Callable[[Extraction], AOTIModel], *, compare: bool
) -> AOTIModel:
    """Build a model from its extracted files; if those turn out to be damaged, once more."""
    retried = False
    while True:
        extraction = extracted(compare=compare or retried)
        try:
            return build(extraction)
        except BaseException as error:
            why = isinstance(error, Exception) and extraction.problem()
            extraction.release()
            if not why:
                raise
            if retried:
                raise ConfigError(
                    f"the extracted model in {extraction.directory} was changed while it was "
                    f"loaded ({why}); set AOTI_CACHE_DIR to a directory that nothing else writes to"
                ) from error
        retried = True


def _reload(package: Package, name: str, options: LoadOptions) -> Callable[..., AOTIModel] | None:
    """A function that loads the same model in another process, or None if that is impossible."""
    if package.path is None or isinstance(options.weights, Mapping) or options.stream is not None:
        return None
    changed = replace(
        options,
        model_name=name,
        device=None if options.device is None else str(options.device),
        weights=None if options.weights is None else str(Path(options.weights).absolute()),
        warmup=False,
    ).changed()
    return functools.partial(load, str(package.path.absolute()), **changed)


def _warn_unchecked(package: Package) -> None:
    _warnings.warn(
        f"{package.name} does not describe its inputs (its generated C++ was stripped): arguments "
        "cannot be checked, and a wrong array is undefined behaviour; export it with aoti.export, "
        "which records them"
    )


def check_code(
    package: Package,
    name: str,
    extraction: Extraction,
    device: Device,
    engine: str,
    extracted: Callable[..., Extraction],
) -> None:
    """Refuse code that would not load, or would crash, before any of it is mapped."""
    files = extraction
    if extraction.path.is_file():
        files = extracted(form="dir", verified=extraction.digest)
    try:
        require(check_package(package, name, files, device, engine=engine))
    finally:
        if files is not extraction:
            files.release()


def wanted_engine(package: Package, asked: str | None) -> str | None:
    """The engine to ask for: the one that a directory was unpacked for, unless the caller says."""
    form = unpacked_form(package)
    if form is None or asked in ("native", "libtorch"):
        return asked
    return "native" if form == "native" else "libtorch"


def _code(package: Package, name: str, engine: str | None) -> SharedObject | None:
    """The model's code, for the choice of the engine; None if it cannot be read.

    What is wrong with it is said later, when all of the package is checked.
    """
    if engine == "libtorch":
        return None
    try:
        return package.code(name)
    except PackageError:
        return None


def _verified_digest(package: Package, sha256: str) -> str:
    if (digest := package.digest) != sha256.lower():
        raise IntegrityError(
            f"{package.name} is not the package that was asked for: its SHA-256 is {digest}, "
            f"not {sha256.lower()}; get it again from a source that you trust"
        )
    return digest


def _golden_values(package: Package, name: str) -> Golden:
    from aoti.golden import Golden  # few loads need it, and importing it takes 1 ms

    return Golden.of(package, name)


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
            f"CPU and on CUDA and ROCm GPUs, not on {device}: export it for one of those"
        )
    if device.index is None and device_index >= 0 and device.type != "cpu":
        return Device(f"{device.type}:{device_index}")
    return device


def _warmup_inputs(warmup: bool | Sequence[Any], model: AOTIModel) -> Sequence[Any]:
    """Inputs for a flat run: the given ones, or zeros in the smallest sizes."""
    if not isinstance(warmup, bool):
        return warmup
    try:
        return example_inputs.zeros(model.signature)
    except ConfigError as error:
        raise ConfigError(
            f"warmup=True: {model.path}: {error}; pass warmup= a list of arrays for a flat run"
        ) from error
