"""Calling models: the policy above the compiled core."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from aoti.arrays.input_plan import InputPlan
from aoti.arrays.validation import Checker, Flatten
from aoti.background import CallsInBackground
from aoti.cache.weight_file import read_table
from aoti.engine._core._bound import bind
from aoti.engine._core._caller import Caller
from aoti.engine._core._program import Program
from aoti.errors import InputError, InputTypeError, ModelClosedError, PackageError
from aoti.machine.device import Device
from aoti.machine.streams import handle_of
from aoti.package.package import Source
from aoti.protocol import InferenceResult
from aoti.run_queue import RunQueue
from aoti.signature.signature import Signature
from aoti.signature.spec import TensorSpec
from aoti.weights.model_weights import Source as WeightSource
from aoti.weights.model_weights import Weights
from aoti.weights.replaceable import WeightsOfAModel

if TYPE_CHECKING:
    from types import TracebackType

    from aoti.cache.extraction import Extraction


class AOTIModel(Caller, CallsInBackground, WeightsOfAModel):
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
    timeout : float or None
        Seconds that a `run_async` may take, waiting included. May be set at any time.

    Notes
    -----
    All methods may be called from any number of threads. The GIL is released while a call waits
    for a runner and while the model runs; short runs keep it where Python knows of one thread only.
    Outputs own their memory and outlive the model; one that shares memory with an input keeps that
    input alive.

    Ctrl-C interrupts a call that waits for a runner, and takes effect right after a run that is
    under way. Waiting for a `Future` of `submit`, or for `run_async`, is interrupted at once.

    A pickle of a model holds the path, the digest and the options of `load`; unpickling loads the
    package from there, and refuses another one. Models that were loaded from their content cannot
    be pickled, and none can be copied: threads may share it.

    A child process made by `os.fork` can go on with its parent's models, unless one was running in
    another thread at the fork: then every run in the child raises ExecutionError. What was queued
    stays with the parent. See `aoti.load`.
    """

    def __init__(
        self,
        engine: object,
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
        intra_op_threads: int | None,
        queue_size: int,
        timeout: float | None,
        origin: tuple[str, dict[str, Any]] | None,
        outputs: str | None,
        weights: WeightSource | None,
        map_source: bool,
        stream: Any,
        may_keep_gil: bool,
    ) -> None:
        self.path = path
        self.model_name = model_name
        self.metadata = metadata
        self.device = device
        self.num_runners = num_runners
        self.timeout = timeout
        self._origin = origin
        self._closed = False
        self._extraction = extraction
        # Not this object's own methods as what the core calls: that would make a cycle, and a
        # dropped model would keep its memory until the garbage collector comes by.
        checker = Checker(signature, package=self.path, device=str(device))
        self._inputs = checker.inputs(validate=validate)
        self._program = Program(
            engine,
            str(extraction.path),
            model_name,
            num_runners=num_runners,
            device=str(device),
            threads=intra_op_threads or 0,
            inputs=self._inputs,
            outputs=outputs,
            hosts=[n for n, spec in enumerate(signature.inputs or ()) if spec.device == "cpu"],
            stream=self._handle(stream),
            may_keep_gil=may_keep_gil,
        )
        table = read_table(extraction.directory)
        self._weights = Weights(
            self._program, extraction, table, path, str(device), single_threaded
        )
        self._weights.start(weights, map_source=map_source)
        self.call_spec = tuple(self._weights.call_spec)
        self.constant_fqns = tuple(self._weights.fqns)
        self._explain = checker.explain
        self._flatten: Flatten
        self._rebuild: Callable[[Sequence[object]], object] = list
        self._flatten_result: Callable[[Any], list[object]] = list
        # What __call__ keeps for itself, unless the module has an argument of that name.
        on_gpu = device.type != "cpu"
        self._options = frozenset(("out", "outputs", "stream") if on_gpu else ("out", "outputs"))
        try:
            plan = signature.plan((self.call_spec[0], self.call_spec[1]))
        except PackageError as error:
            # The structure is unknown; flat runs need none.
            self._flatten = _refusal(str(error))
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
        # A worker's own stream is not the one that the caller's arrays are computed on.
        self._queued = self._program.on_stream if on_gpu else None
        self._queue = RunQueue(
            self._program.call_on if on_gpu else self._program.call_flat,
            workers=num_runners,
            size=queue_size,
            name=f"model {model_name!r} of {path}",
        )

    @staticmethod
    def load(path: Source, **options: Any) -> AOTIModel:
        """Load a model: `aoti.load` under another name, with the same options."""
        from aoti.loading import load

        return load(path, **options)

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
        return self._explain(leaves, self._inputs.examine(leaves))

    def bind(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """Fix the inputs, and with `out` the outputs: a callable for the tightest loops.

        Parameters
        ----------
        *args, **kwargs
            As for a call, its options among them. Each run reads what the arrays then
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
            raise _not_flat(inputs)
        return self._program.run_to(inputs, outputs, out, self._handle(stream))

    def boxed_run(self, inputs: list[Any], *, stream: Any = None) -> list[Any]:
        """Run on a flat list of arrays and empty it, so that the caller holds none of them.

        The list is emptied even if the run fails. An array that nobody else holds is freed as soon
        as the model is done with it, in the middle of the run; one that is read-only, at its end.

        Parameters and errors are those of `run`.
        """
        if not isinstance(inputs, list):
            raise InputTypeError(f"boxed_run empties a list, and got {type(inputs).__name__}")
        return self._program.run_boxed(inputs, self._handle(stream))

    def infer(self, inputs: Sequence[Any], *, stream: Any = None) -> InferenceResult:
        """Run on a flat sequence of arrays and measure it. Parameters and errors as for `run`."""
        if not isinstance(inputs, (list, tuple)):
            raise _not_flat(inputs)
        start = time.perf_counter_ns()
        outputs, version, bytes_ = self._program.run_measured(inputs, self._handle(stream))
        latency_ms = (time.perf_counter_ns() - start) / 1e6
        return InferenceResult(outputs, latency_ms, bytes_, version)

    def _handle(self, stream: Any) -> int | None:
        return None if stream is None else handle_of(stream, self.device)

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
        """The arrays that the model gives, in flat order; None if the package does not tell.

        Dtypes and shapes are None where the package does not record them: `aoti.export` does.
        """
        return self.signature.outputs

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Free the model, after the calls that are running have ended. Harmless the second time.

        Calls that wait, for a runner or in the queue, and later ones raise `ModelClosedError`. The
        weights, the buffers and the extracted files are given back. The code of the model stays
        mapped until the process ends: its shared object holds unique symbols, which glibc never
        unloads. Loading the same package again uses that mapping.
        """
        self._closed = True
        self._queue.close()
        self._program.close()
        self._weights.close()
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
        # The core frees the rest by itself, after what is queued has run.
        if (queue := getattr(self, "_queue", None)) is not None:
            queue.retire()
        if (extraction := getattr(self, "_extraction", None)) is not None:
            extraction.release()

    def __reduce__(self) -> Any:
        if self._closed:
            raise ModelClosedError("a closed model cannot be pickled")
        if self._origin is None:
            raise TypeError(
                f"{self.path} was loaded from its content, with weights from memory or for a "
                "stream, which cannot be found again to unpickle it; load it from files"
            )
        from aoti.loading import load

        path, options = self._origin
        options = {**options, "sha256": self._extraction.digest or None, "timeout": self.timeout}
        return functools.partial(load, path, **options), ()

    def __copy__(self) -> AOTIModel:
        raise TypeError("a loaded model cannot be copied; share it, or load it again")

    def __deepcopy__(self, _: dict[int, Any]) -> AOTIModel:
        return self.__copy__()

    def __repr__(self) -> str:
        if self._closed:
            return f"<aoti.AOTIModel {self.model_name!r} of {self.path}, closed>"
        takes = "unknown inputs"
        if self.inputs is not None:
            takes = ", ".join(f"{spec.name}: {spec}" for spec in self.inputs) or "no inputs"
        return f"<aoti.AOTIModel {self.model_name!r} of {self.path} on {self.device}: {takes}>"


def _not_flat(inputs: object) -> InputTypeError:
    return InputTypeError(
        f"run takes a list of arrays, one per input, and got {type(inputs).__name__}; "
        "call the model itself to pass arguments as at the export"
    )


def _refusal(reason: str) -> Flatten:
    """A flatten function for a model that cannot be called, only run."""

    def flatten(_args: tuple[object, ...], _kwargs: dict[str, object]) -> Sequence[object]:
        raise PackageError(reason)

    return flatten
