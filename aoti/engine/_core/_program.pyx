# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""A loaded model: calls and runs from Python arrays to Python arrays.

Mechanism only. Names, defaults and the wording of input errors are in the modules above
(aoti.model first of all). Each function converts, runs one block, mostly without the GIL, and
converts.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from aoti.engine._core._device cimport (
    current_stream,
    device_named,
    engine_of,
    stream_number,
)
from aoti.engine._core._inputs cimport Inputs
from aoti.engine._core._library cimport ArrayLibrary, library_of_first
from aoti.engine._core._outputs cimport output, read_targets, refuse_targets
from aoti.engine._core._outputs cimport outputs as all_outputs
from aoti.engine._core._status cimport raise_status
from aoti.engine._core._structure cimport NodeKind, Structure
from aoti.engine._core._weights cimport WeightSet
from aoti.engine.cxx cimport devices
from aoti.engine.cxx.call cimport InputList, OutputList
from aoti.engine.cxx.device cimport is_cpu
from aoti.engine.cxx.devices cimport StreamScope
from aoti.engine.cxx.gil cimport look_up_python_threads, taken
from aoti.engine.cxx.program cimport Program as CxxProgram
from aoti.engine.cxx.program cimport Run
from aoti.engine.cxx.status cimport Status, StatusCode
from aoti.engine.cxx.tensor cimport Tensor as CxxTensor

from collections.abc import Callable, Sequence
from os import fsencode
from typing import Any

from aoti.engine._core._library import library_named
from aoti.errors import ConfigError, ConstantError, ModelClosedError

look_up_python_threads()


cdef class Program:
    """One loaded model: its runners, its input specifications, and the weights that it serves.

    A new one serves none yet: see `open` and `serve`.

    Parameters
    ----------
    engine : capsule
        The engine that runs it.
    path : str
        A directory (torch 2.13 or newer) or a zip file that `aoti.cache` wrote.
    model_name : str
        The model in it.
    num_runners : int
        How many runs may go on at once.
    device : str
        Where it runs, with a number if that is not the CPU.
    threads : int
        How many OpenMP threads a run may use; 0 leaves that to OpenMP.
    inputs : Inputs
        What its inputs must be.
    outputs : str, optional
        The library of what comes out. None: of what goes in.
    hosts : sequence of int
        The numbers of inputs that lie on the CPU wherever the model runs.
    stream : int, optional
        The handle of the stream that runs go to. None: the current one of the calling thread.
    may_keep_gil : bool
        Whether short runs keep the GIL if no other thread could take it: csrc/aoti/engine/gil.h.
        Not for models that call operators of others: one may wait for a thread that wants the GIL.

    Attributes
    ----------
    unset : str
        What a run is refused with as long as no weights are served.

    Notes
    -----
    All methods may be called from any thread. `open`, runs and `close` release the GIL, but see
    `may_keep_gil`.
    While a run waits for its turn, signals are handled.
    """

    def __init__(
        self,
        engine: object,
        str path,
        str model_name,
        *,
        size_t num_runners,
        str device,
        int threads,
        Inputs inputs not None,
        outputs: str | None = None,
        hosts: Sequence[int] = (),
        stream: int | None = None,
        bint may_keep_gil=False,
    ) -> None:
        if self.held:
            raise RuntimeError("a Program is initialised once")
        self.engine = engine
        self.device = device_named(device)
        self.cpu = is_cpu(self.device)
        self.unset = "the model has no weights"
        self.wanted = inputs
        self.wanted.lie_on(self.device, hosts)
        self.streamed = stream is not None
        if stream is not None:
            self.stream = stream_number(self.device, stream)
        self.may_keep_gil = may_keep_gil and self.cpu
        self.follow = outputs is None
        self.library = None if outputs is None else library_named(outputs)
        self.held.reset(new CxxProgram(
            deref(engine_of(engine)), fsencode(path), fsencode(model_name), num_runners,
            self.device, threads))

    def __dealloc__(self):
        if self.held:
            with nogil:
                deref(self.held).close()

    cdef int check_loaded(self) except -1:
        if not self.held:
            raise ModelClosedError("the model was never loaded")
        return 0

    def open(self, uint64_t number, *, bint container_per_runner) -> WeightSet:
        """Make containers for the model, with the weights that are stored in its code.

        With `container_per_runner`, every runner gets one, which runs without locks, but has its
        own copy of those weights and of what is computed from weights once. Else they share one.
        """
        cdef WeightSet weights = WeightSet.__new__(WeightSet)
        cdef Status status
        self.check_loaded()
        weights.program = self
        with nogil:
            status = deref(self.held).open(number, container_per_runner, weights.held)
        if not status.ok():
            raise_status(status)
        return weights

    def serve(self, WeightSet weights not None) -> None:
        """Let all runs that begin from now on use these weights.

        Those that are under way end on what they began with, which is freed with the last of them
        if nobody else holds it.
        """
        if weights.program is not self or not weights.held:
            raise ValueError("weights of another model")
        cdef cbool open
        with nogil:
            open = deref(self.held).serve(weights.held)
        if not open:
            raise ModelClosedError("the model was closed")

    def plan_calls(
        self,
        structure: tuple[Any, Any, Any],
        *,
        bint arrays_only,
        rebuild: Callable[[list[Any]], Any] | None,
    ) -> None:
        """Say how calls are structured.

        Parameters
        ----------
        structure : tuple
            `CallPlan.structure`.
        arrays_only : bool
            Whether all arguments are inputs of the model.
        rebuild : callable or None
            From the outputs to the result, if that is more than the outputs in their structure.
        """
        self.structure = Structure(*structure, arrays_only=arrays_only)
        self.rebuild = rebuild

    # Without Cython's own function type, which has no vectorcall under the limited API, Python
    # calls what has one parameter directly: a fifth of a microsecond less.

    @cython.binding(False)
    def call_flat(self, inputs: Sequence[Any]) -> Any:
        """Run the model on flat inputs, and give what a call gives."""
        return self.call(tuple(inputs))

    @cython.binding(False)
    def call_numbered(self, inputs: Sequence[Any]) -> tuple[Any, int]:
        """The same, with the number of the weights that it ran on."""
        cdef Run run
        result = self.call_with(tuple(inputs), run)
        return result, run.number

    def call_on(self, item: tuple[int, Sequence[Any]]) -> tuple[Any, int]:
        """`call_numbered` on a stream by its number, and the inputs: what `on_stream` gave."""
        cdef StreamScope scope
        self.enter_number(item[0], scope)
        return self.call_numbered(item[1])

    def on_stream(self, inputs: Sequence[Any]) -> tuple[int, Sequence[Any]]:
        """Inputs for `call_on` in another thread, with the stream that a call would run on now."""
        cdef int64_t number = self.stream
        if not self.streamed:
            current_stream(self.device, &number)
        return number, inputs

    cdef int enter(self, stream, StreamScope& scope) except -1:
        """Make a stream current, None being the model's own if it has one."""
        if stream is not None:
            if self.cpu:
                raise ConfigError("stream: the model runs on the CPU, which has no streams")
            self.enter_number(stream_number(self.device, stream), scope)
        elif self.streamed:
            self.enter_number(self.stream, scope)
        return 0

    cdef int enter_number(self, int64_t number, StreamScope& scope) except -1:
        cdef Status status = scope.enter(self.device, number)
        if not status.ok():
            raise_status(status)
        return 0

    cdef ArrayLibrary library_for(self, tuple inputs):
        """The library of the outputs that these inputs get."""
        return library_of_first(inputs) if self.follow else self.library

    cdef object call(self, tuple inputs):
        cdef Run run
        return self.call_with(inputs, run)

    cdef object call_with(self, tuple inputs, Run& run):
        cdef ArrayLibrary library = self.library_for(inputs)
        cdef StreamScope scope
        if self.streamed:
            self.enter(None, scope)
        cdef tuple leaves = self.prepare_and_execute(inputs, run)
        return self.result(run.outputs, leaves, library)

    cdef object result(self, OutputList& made, tuple leaves, ArrayLibrary library):
        """What a call gives, of the outputs."""
        if self.structure is None or self.rebuild is not None or (
                self.structure.result.kind != NodeKind.LEAF):
            return self.rebuilt(all_outputs(made, leaves, library))
        self.structure.check_count(made.size())
        return output(made, 0, leaves, library)

    cdef object rebuilt(self, list outputs):
        if self.structure is None:
            return outputs
        if self.rebuild is not None:
            return self.rebuild(outputs)
        self.structure.check_count(len(outputs))
        return self.structure.build(outputs)

    @cython.binding(False)
    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the model on a flat sequence of arrays and return its outputs as a flat list.

        The GIL is released while waiting for a runner and while the model runs. Outputs own their
        memory; one that shares memory with an input keeps that input alive.
        """
        return self.run_all(tuple(inputs))

    cdef list run_all(self, tuple inputs):
        cdef ArrayLibrary library = self.library_for(inputs)
        cdef Run run
        cdef StreamScope scope
        if self.streamed:
            self.enter(None, scope)
        cdef tuple leaves = self.prepare_and_execute(inputs, run)
        return all_outputs(run.outputs, leaves, library)

    def run_numbered(self, inputs: Sequence[Any], outputs: str) -> tuple[list[Any], int]:
        """The same, with outputs of this library, and the number of the weights that it ran on."""
        cdef Run run
        cdef tuple leaves = self.prepare_and_execute(tuple(inputs), run)
        return all_outputs(run.outputs, leaves, library_named(outputs)), run.number

    def run_measured(
        self, inputs: Sequence[Any], stream: int | None = None
    ) -> tuple[list[Any], int, int | None]:
        """The same, with the number of the weights that it ran on, and the bytes that the run took
        on its device at most: None on the CPU.
        """
        cdef tuple leaves = tuple(inputs)
        cdef ArrayLibrary library = self.library_for(leaves)
        cdef Run run
        cdef StreamScope scope
        cdef int64_t before = 0, after = 0, peak = 0
        self.enter(stream, scope)
        if not self.cpu:
            self.measure(&before, &peak, True)
        leaves = self.prepare_and_execute(leaves, run)
        if not self.cpu:
            self.measure(&after, &peak, False)
        made = all_outputs(run.outputs, leaves, library)
        return made, run.number, None if self.cpu else max(peak - before, 0)

    cdef int measure(self, int64_t* now, int64_t* peak, bint start) except -1:
        cdef Status status
        if start:
            status = devices.reset_peak(self.device)
            if not status.ok():
                raise_status(status)
        status = devices.device_memory(self.device, now[0], peak[0])
        if not status.ok():
            raise_status(status)
        return 0

    cdef tuple prepare_and_execute(self, tuple inputs, Run& run):
        """Run on these inputs. Returns what they lay on."""
        cdef tuple leaves = self.prepare(inputs, run.inputs, False)
        self.execute(run)
        return leaves

    def run_boxed(self, list inputs, stream: int | None = None) -> list[Any]:
        """The same, after emptying the list. An input that nobody else holds is given back as soon
        as the model is done with it, in the middle of the run.
        """
        # That takes the GIL while a runner is held, which cannot block: whoever waits for a runner
        # does so without the GIL, or is the only thread that there is.
        cdef tuple leaves = tuple(inputs)
        inputs.clear()
        cdef ArrayLibrary library = self.library_for(leaves)
        cdef Run run
        cdef StreamScope scope
        self.enter(stream, scope)
        leaves = self.prepare(leaves, run.inputs, True)
        self.execute(run)
        return all_outputs(run.outputs, leaves, library)

    def run_to(
        self,
        inputs: Sequence[Any],
        outputs: str | None = None,
        out: Sequence[Any] | None = None,
        stream: int | None = None,
    ) -> list[Any]:
        """Run as `run` does, with outputs of this library or in these arrays, None for a new one;
        on the stream with this handle.
        """
        cdef tuple leaves = tuple(inputs)
        cdef ArrayLibrary library
        if outputs is not None:
            library = library_named(outputs)
        else:
            library = self.library_for(leaves)
        cdef Run run
        cdef vector[CxxTensor] targets
        cdef StreamScope scope
        self.enter(stream, scope)
        if out is not None:
            out = tuple(out)  # the targets lie in these arrays, whatever the caller does to a list
            read_targets(out, targets, self.device)
            run.targets = &targets
        leaves = self.prepare(leaves, run.inputs, False)
        self.execute(run, out)
        return [
            output(run.outputs, i, leaves, library) if out is None or out[i] is None else out[i]
            for i in range(run.outputs.size())]

    cdef int execute(self, Run& run, out=None) except -1:
        """Run, and copy the outputs into the targets if there are any, which lie on the arrays of
        `out`.
        """
        cdef Status status
        cdef int64_t begun, ended
        status.code = StatusCode.kBusy
        if self.may_keep_gil and self.gil_policy.keeps_gil():
            status = deref(self.held).run(run)
        while self.goes_on(status):
            begun = self.gil_policy.begin()
            with nogil:
                status = deref(self.held).run_without_gil(run)
            ended = taken()
            if status.code == StatusCode.kOk:
                self.gil_policy.end(begun, ended)
        if run.wrong >= 0:
            refuse_targets(run, out)
        return 0

    cdef bint goes_on(self, const Status& status) except -1:
        """Whether there was no runner yet. Handles signals then, and raises what is a failure."""
        if status.code == StatusCode.kOk:
            return False
        if status.code == StatusCode.kUnset:
            raise ConstantError(self.unset)
        if status.code != StatusCode.kBusy:
            raise_status(status)
        PyErr_CheckSignals()
        return True

    cdef tuple prepare(self, tuple inputs, InputList& list_, bint release):
        """Check everything and fill `list_`. Returns the arrays that the inputs lie on."""
        self.check_loaded()
        return self.wanted.prepare(inputs, list_, release)

    def close(self) -> None:
        """Wait for the runs that are under way, and serve nothing any more.

        Harmless the second time. The weights that were served are freed unless somebody holds them.
        """
        if self.held:
            with nogil:
                deref(self.held).close()
