"""Calling models: the policy above the compiled core."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from aoti.arrays.input_plan import InputPlan
from aoti.arrays.validation import Checker
from aoti.background.calls import QueuedCalls
from aoti.background.run_queue import RunQueue
from aoti.cache.weight_file import read_table
from aoti.engine._core._bound import bind
from aoti.engine._core._caller import Caller
from aoti.engine._core._program import Program
from aoti.errors import InputError, InputTypeError, ModelClosedError, PackageError
from aoti.machine.device import Device
from aoti.machine.streams import handle_of
from aoti.options import LoadOptions, takes
from aoti.package.package import Source
from aoti.protocol import InferenceResult, ModelInfo
from aoti.signature.signature import Signature
from aoti.signature.spec import TensorSpec
from aoti.weights.aliases import WeightCalls
from aoti.weights.model_weights import ModelWeights, one_container_per_runner

if TYPE_CHECKING:
    from aoti.arrays.joined_calls import Answer
    from aoti.cache.extraction import Extraction


_NOT_FLAT = (
    "run takes a list of arrays, got {}; call the model itself to pass arguments as exported"
)


class AOTIModel(Caller, QueuedCalls, WeightCalls):
    """A loaded model. Made by `aoti.load`, called as the exported module was called.

    Attributes
    ----------
    path : str
        Where the package was loaded from.
    model_name : str
        The model's name in the package.
    device, engine : Device, str
        The device it runs on, and what runs it: ``native`` or ``libtorch`` (see `aoti.load`).
    metadata : dict of str to str
        What the exporter wrote about it.
    signature : Signature
        Its inputs and outputs.
    weights : ModelWeights
        Its weights, which can be replaced while it runs.
    call_spec : tuple of str
        The input and the output treespec, as JSON.
    constant_fqns : tuple of str
        The fully qualified names of its constants.
    num_runners : int
        How many calls may run at the same time.
    timeout : float or None
        Seconds that a `run_async` may take, including the time it waits. May be set at any time.

    Notes
    -----
    All methods may be called from any number of threads. The GIL is released while a call waits
    for a runner and while the model runs; short runs keep it in a single-threaded process. Ctrl-C
    interrupts a waiting call at once, and takes effect after a run that is under way. Outputs own
    their memory and outlive the model; one that shares an input's memory keeps that input alive.

    The package records the name of a namedtuple's class. A result is of the class that the program
    registered with torch, or imported, under this name. If there is no such class, the result is of
    a stand-in class with the same name and fields.

    A pickle of a model holds the path, the digest and the options of `load`; unpickling loads the
    package from there, and refuses another one. Models that were loaded from their content cannot
    be pickled. No model can be copied: threads may share it.

    A child process made by `os.fork` can go on with its parent's models, unless one was running in
    another thread at the fork: then every run in the child raises ExecutionError. Queued calls
    stay with the parent. See `aoti.load`.
    """

    def __init__(
        self,
        engine: object,
        extraction: Extraction,
        *,
        engine_name: str,
        path: str,
        model_name: str,
        metadata: dict[str, str],
        device: Device,
        signature: Signature,
        options: LoadOptions,
        reload: Callable[..., AOTIModel] | None,
        may_keep_gil: bool,
    ) -> None:
        self.path = path
        self.engine = engine_name
        self.model_name = model_name
        self.metadata = metadata
        self.device = device
        self.num_runners = options.num_runners
        self.timeout = options.timeout
        self._threads = options.intra_op_threads
        self._reload = reload
        self._closed = False
        self._extraction = extraction
        # Not this object's own methods as what the core calls: that would make a cycle, and a
        # dropped model would keep its memory until the garbage collector comes by.
        checker = Checker(signature, package=self.path, device=str(device))
        self._inputs = checker.inputs(validate=options.validate)
        self._program = Program(
            engine,
            str(extraction.entry(model_name)),
            model_name,
            num_runners=options.num_runners,
            device=str(device),
            threads=options.intra_op_threads or 0,
            inputs=self._inputs,
            outputs=options.outputs,
            hosts=[n for n, spec in enumerate(signature.inputs or ()) if spec.device == "cpu"],
            stream=self._handle(options.stream),
            may_keep_gil=may_keep_gil,
        )
        table = read_table(extraction.directory)
        self._apart = one_container_per_runner(
            table, extraction, device=str(device), single_threaded=options.single_threaded
        )
        first = self._program.open(1, container_per_runner=self._apart)
        call_spec, constant_fqns, _ = first.describe()
        self.call_spec, self.constant_fqns = tuple(call_spec), tuple(constant_fqns)
        self.weights = ModelWeights(
            self._program, first, extraction, table, options, path, str(device), self._apart
        )
        self._explain = checker.explain
        self._rebuild: Callable[[Sequence[object]], object] = list
        self._flatten_result: Callable[[Any], list[object]] = list
        # The options of a call itself, unless the module has an argument of that name.
        on_gpu = device.type != "cpu"
        self._options = frozenset(("out", "outputs", "stream") if on_gpu else ("out", "outputs"))
        try:
            plan = signature.plan((self.call_spec[0], self.call_spec[1]))
        except PackageError as error:
            # The structure is unknown; flat runs need none.
            self._flatten = functools.partial(_refuse, str(error))
        else:
            self._flatten = checker.plan_calls(plan)
            self._rebuild, self._flatten_result = checker.plan_results(plan)
            self._options -= plan.keywords
            self._program.plan_calls(
                plan.structure,
                arrays_only=self._flatten is plan.flatten,
                rebuild=None if self._rebuild is plan.rebuild else self._rebuild,
            )
        self.signature = checker.signature
        self._joins = None
        call: Callable[[Any], Answer] = self._program.call_numbered
        if options.batching is not None:
            from aoti.arrays.joined_calls import JoinedCalls  # few models need it

            self._joins = JoinedCalls(
                options.batching,
                self.signature,
                device=device,
                fit=functools.partial(checker.fit, inputs=self._inputs),
                call=call,
                run=self._program.run_numbered,
                rebuild=self._rebuild,
                outputs=options.outputs,
            )
            self._queued, call = self._joins.queued, self._joins.call
        elif on_gpu:
            # A worker's own stream is not the one that the caller's arrays are computed on.
            self._queued, call = self._program.on_stream, self._program.call_on
        self._queue = RunQueue(
            call,
            workers=options.num_runners,
            size=options.queue_size,
            name=f"model {model_name!r} of {path}",
            joins=self._joins,
        )

    @staticmethod
    @takes(LoadOptions)
    def load(path: Source, **options: Any) -> AOTIModel:
        """Load a model, as `aoti.load`."""
        import aoti

        return aoti.load(path, **options)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call whose arguments are not exactly as exported, or that has options."""
        if kwargs and not self._options.isdisjoint(kwargs):
            options = {name: kwargs.pop(name) for name in self._options & kwargs.keys()}
            if (out := options.get("out")) is not None:
                options["out"] = self._flatten_result(out)
            if "stream" in options:
                options["stream"] = self._handle(options["stream"])
            return self._rebuild(self._program.run_to(self._flatten(args, kwargs), **options))
        return self._program.call_flat(self._flatten(args, kwargs))

    def plan(self, *args: Any, **kwargs: Any) -> list[InputPlan]:
        """What a call with these arguments would do with each input; runs nothing.

        Parameters
        ----------
        *args, **kwargs
            As for a call, without its options.

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
        return self._explain(leaves, self._inputs.examine(leaves))

    def bind(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """Fix the inputs, and with `out` the outputs: a callable for the tightest loops.

        Parameters
        ----------
        *args, **kwargs
            As for a call, including its options. Each run reads the present content of the arrays,
            so it must be possible to share their memory: see `plan`.

        Returns
        -------
        callable
            Without parameters. Returns what a call returns; with `out`, always the same object. It
            keeps the model and the arrays alive. Threads that share it write to the same `out`.

        Raises
        ------
        InputError, InputTypeError
            As for a call, or an input would have to be copied. From the callable: an index in an
            input is out of range, or a torch tensor was given other memory.
        """
        chosen = {name: kwargs.pop(name) for name in self._options & kwargs.keys()}
        out = chosen.get("out")
        leaves = self._flatten(args, kwargs)
        for plan in self._explain(leaves, self._inputs.examine(leaves)):
            if plan.action == "copied":
                raise InputError(
                    f"{plan.path}: a bound input is read at each call, and this one would be "
                    f"copied once: {plan.reason}; pass an array that can be shared"
                )
        return bind(
            self._program,
            leaves,
            None if out is None else self._flatten_result(out),
            chosen.get("outputs"),
            self,
            self._handle(chosen.get("stream")),
        )

    def _run(
        self, inputs: Sequence[Any], outputs: str | None, out: Sequence[Any] | None, stream: Any
    ) -> list[Any]:
        """A run with options, or of a sequence that is not a list or tuple."""
        if not isinstance(inputs, (list, tuple)):
            raise InputTypeError(_NOT_FLAT.format(type(inputs).__name__))
        return self._program.run_to(inputs, outputs, out, self._handle(stream))

    def boxed_run(self, inputs: list[Any], *, stream: Any = None) -> list[Any]:
        """Run on a flat list of arrays and empty it, so that the caller holds none of them.

        The list is emptied even if the run fails. An array that nobody else holds is freed in the
        middle of the run, as soon as the model has used it; a read-only one, at the end of the run.

        Parameters
        ----------
        inputs : list of arrays
            One per tensor, in the order of the input treespec.
        stream : optional
            As for `load`, for this run only.

        Returns
        -------
        list of arrays
            One per tensor, in the order of the output treespec.

        Raises
        ------
        InputError, InputTypeError, ExecutionError, ModelClosedError
            As for a call.
        """
        if not isinstance(inputs, list):
            raise InputTypeError(f"boxed_run empties a list, got {type(inputs).__name__}")
        return self._program.run_boxed(inputs, self._handle(stream))

    def infer(self, inputs: Sequence[Any], *, stream: Any = None) -> InferenceResult:
        """Run on a flat sequence of arrays, and measure the time and the memory of the run.

        Parameters
        ----------
        inputs : sequence of arrays
            One per tensor, in the order of the input treespec.
        stream : optional
            As for `load`, for this run only.

        Returns
        -------
        InferenceResult
            The outputs, with the time, the memory and the version of the weights.

        Raises
        ------
        InputError, InputTypeError, ExecutionError, ModelClosedError
            As for a call.
        """
        if not isinstance(inputs, (list, tuple)):
            raise InputTypeError(_NOT_FLAT.format(type(inputs).__name__))
        start = time.perf_counter_ns()
        outputs, version, bytes_ = self._program.run_measured(inputs, self._handle(stream))
        latency_ms = (time.perf_counter_ns() - start) / 1e6
        return InferenceResult(outputs, latency_ms, bytes_, version)

    def _handle(self, stream: Any) -> int | None:
        return None if stream is None else handle_of(stream, self.device)

    def get_metadata(self) -> dict[str, str]:
        """The attribute `metadata`, under the name of the C++ loader's method."""
        return dict(self.metadata)

    def get_call_spec(self) -> list[str]:
        """The attribute `call_spec`, under the name of the C++ loader's method."""
        return list(self.call_spec)

    def get_constant_fqns(self) -> list[str]:
        """The attribute `constant_fqns`, under the name of the C++ loader's method."""
        return list(self.constant_fqns)

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """The inputs of the model, in flat order; None if the package does not describe them."""
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """The outputs of the model, in flat order; None if the package does not describe them.

        Dtypes and shapes are None if the package does not record them; `aoti.export` does.
        """
        return self.signature.outputs

    def info(self) -> ModelInfo:
        """Facts about the loaded model: its engine, mapped files and queue."""
        file = self.weights.file
        load = self._queue.load()
        return ModelInfo(
            engine=self.engine,
            device=str(self.device),
            sha256=self._extraction.origin,
            entry=self._extraction.directory,
            code=self._extraction.path,
            weights_file=None if file is None else file.path,
            weights_bytes=0 if file is None else file.nbytes,
            weights_version=self.weights.version,
            num_runners=self.num_runners,
            containers=self.num_runners if self._apart else 1,
            intra_op_threads=self._threads,
            running=load.running,
            waiting=load.waiting,
            calls=load.calls,
            runs=load.runs,
            run_seconds=load.seconds,
            run_sizes=load.sizes,
            max_rows=1 if self._joins is None else self._joins.max_rows,
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Free the model, after the calls that are running have ended. A second call is harmless.

        Waiting and later calls raise `ModelClosedError`. The weights, the buffers and the extracted
        files are released. The code stays mapped until the process ends, and loading the package
        again reuses it: its shared object holds unique symbols, which glibc never unloads.
        """
        self._closed = True
        self._queue.close()
        self._program.close()
        self.weights.release()
        self._extraction.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The core frees the rest by itself, after the queued calls have run.
        if (queue := getattr(self, "_queue", None)) is not None:
            queue.retire()
        if (extraction := getattr(self, "_extraction", None)) is not None:
            extraction.release()

    def __reduce__(self) -> Any:
        if self._closed:
            raise ModelClosedError("a closed model cannot be pickled")
        if self._reload is None:
            raise TypeError(
                f"{self.path} was loaded from its content, with weights from memory or for a "
                "stream, which cannot be found again to unpickle it; load it from files"
            )
        digest = self._extraction.digest or None
        return functools.partial(self._reload, sha256=digest, timeout=self.timeout), ()

    def __copy__(self, _: object = None) -> AOTIModel:
        raise TypeError("a loaded model cannot be copied; share it, or load it again")

    __deepcopy__ = __copy__

    def __repr__(self) -> str:
        if self._closed:
            return f"<aoti.AOTIModel {self.model_name!r} of {self.path}, closed>"
        takes = "unknown inputs"
        if self.inputs is not None:
            takes = ", ".join(f"{spec.name}: {spec}" for spec in self.inputs) or "no inputs"
        return f"<aoti.AOTIModel {self.model_name!r} of {self.path} on {self.device}: {takes}>"


def _refuse(reason: str, _args: tuple[object, ...], _kwargs: dict[str, object]) -> list[object]:
    raise PackageError(reason)
