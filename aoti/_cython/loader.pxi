cdef class Loader:
    """One loaded model: its permits, its input specifications, and the generation that it serves.

    A new one serves none yet: see `open` and `serve`.

    Parameters
    ----------
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
    inputs : sequence of tuple, or None
        Per input `(dtype, sizes, order, strides, mutated, values)`: dtype by name; per dimension
        its size, or `(n, scale, offset)` for `scale * symbol n + offset`; the dimensions from the
        innermost outwards; strides in elements; whether the model writes into it; the least and
        the largest value, as sizes are given. All but `mutated` may be None: not known. None
        altogether: nothing is known, any number of C-contiguous writeable arrays is passed on.
    ranges : sequence of tuple
        Per symbol its least and its largest size, each None if there is none.
    ranges_hold : bool
        Whether a size out of its range is refused. If not, `repair` is told of the first, and the
        ranges are forgotten.
    validate : bool
        Whether inputs are checked at all. If not, they are taken for what the model wants.
    repair : callable
        `repair(index, inputs)` is called for an input that cannot be passed as it is. It returns
        an array of the same value that can, or raises.
    refuse_values : callable
        `refuse_values(index, inputs)` is called for an input with values out of range, and raises.
    outputs : str, optional
        The kind of what comes out. None: of what goes in.
    hosts : sequence of int
        The numbers of inputs that lie on the CPU wherever the model runs.
    stream : int, optional
        The handle of the stream that runs go to. None: the current one of the calling thread.
    may_keep_gil : bool
        Whether short runs keep the GIL where nobody else could take it: csrc/aoti/solo.h. Not for
        models that call what is not theirs: an operator may wait for a thread that wants the GIL.

    Attributes
    ----------
    unset : str
        What a run is refused with as long as no generation is served.

    Notes
    -----
    All methods may be called from any thread. `open`, runs and `close` release the GIL, but see
    `may_keep_gil`.
    While a run waits for its turn, signals are handled.
    """

    cdef unique_ptr[_cxx.Permits] permits
    cdef string path
    cdef string model_name
    cdef size_t num_runners
    cdef _cxx.Place place
    cdef bint streamed   # runs go to a stream of their own
    cdef int64_t stream  # this one
    cdef public str unset
    cdef Inputs wanted
    cdef int threads
    cdef Structure structure  # of calls, if it is known
    cdef object rebuild
    cdef bint follow  # outputs are of the inputs' kind
    cdef Kind kind    # else of this one
    cdef bint may_keep_gil
    cdef _cxx.Solo solo

    def __init__(
        self,
        str path,
        str model_name,
        *,
        size_t num_runners,
        str device,
        int threads,
        inputs: Sequence[tuple[Any, Any, Any, Any, bool, Any]] | None,
        ranges: Sequence[tuple[int | None, int | None]],
        bint ranges_hold,
        bint validate,
        repair: Callable[[int, Sequence[Any]], Any],
        refuse_values: Callable[[int, Sequence[Any]], None],
        outputs: str | None = None,
        hosts: Sequence[int] = (),
        stream: int | None = None,
        bint may_keep_gil=False,
    ) -> None:
        if self.permits:
            raise RuntimeError("a Loader is initialised once")
        self.path, self.model_name = path.encode(), model_name.encode()
        self.num_runners = num_runners
        self.place = _place_named(device)
        self.unset = "the model has no weights"
        self.wanted = Inputs(
            inputs, ranges, ranges_hold=ranges_hold, validate=validate, repair=repair,
            refuse_values=refuse_values)
        self.wanted.lie_on(self.place, hosts)
        self.streamed = stream is not None
        if stream is not None:
            self.stream = _stream_number(self.place, stream)
        self.threads = threads
        self.may_keep_gil = may_keep_gil and self.place.is_cpu()
        self.follow = outputs is None
        self.kind = None if outputs is None else kind_named(outputs)
        self.permits = make_unique[_cxx.Permits](num_runners)

    def __dealloc__(self):
        if self.permits:
            with nogil:
                deref(self.permits).close()

    def open(self, uint64_t number, *, bint apart) -> Generation:
        """Make containers for the model, with the weights that stand in its code.

        With `apart`, every runner gets one of its own, which runs without locks, but has its own
        copy of those weights and of what is computed from weights once. Else they share one.
        """
        cdef Generation generation = Generation.__new__(Generation)
        cdef Failure failure
        if not self.permits:
            raise ModelClosedError("the model was never loaded")
        generation.loader = self
        with nogil:
            failure = _cxx.open(
                generation.held, self.path, self.model_name, apart, self.num_runners, self.place,
                number)
        if failure.fault != Fault.kNone:
            _raise(failure)
        return generation

    def serve(self, Generation generation not None) -> None:
        """Let all runs that begin from now on run on a generation.

        Those that are under way end on what they began with, which is freed with the last of them
        if nobody else holds it.
        """
        if generation.loader is not self or generation.held == NULL:
            raise ValueError("a generation of another model")
        cdef cbool open
        with nogil:
            open = deref(self.permits).serve(generation.held)
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
        return self._call(tuple(inputs))

    def call_on(self, item: tuple[int, Sequence[Any]]) -> Any:
        """The same on a stream by its number, and the inputs: what `on_stream` gave."""
        cdef _cxx.StreamScope scope
        self._enter_number(item[0], scope)
        return self._call(tuple(item[1]))

    def on_stream(self, inputs: Sequence[Any]) -> tuple[int, Sequence[Any]]:
        """Inputs for `call_on` in another thread, with the stream that a call would run on now."""
        cdef int64_t number = self.stream
        if not self.streamed:
            _current_stream(self.place, &number)
        return number, inputs

    cdef int _enter(self, stream, _cxx.StreamScope& scope) except -1:
        """Make a stream current, None being the model's own if it has one."""
        if stream is not None:
            if self.place.is_cpu():
                raise ConfigError("stream: the model runs on the CPU, which has no streams")
            self._enter_number(_stream_number(self.place, stream), scope)
        elif self.streamed:
            self._enter_number(self.stream, scope)
        return 0

    cdef int _enter_number(self, int64_t number, _cxx.StreamScope& scope) except -1:
        cdef Failure failure = scope.enter(self.place, number)
        if failure.fault != Fault.kNone:
            _raise(failure)
        return 0

    cdef Kind kind_for(self, tuple inputs):
        """The kind of outputs that these inputs get."""
        return _kind_of(inputs) if self.follow else self.kind

    cdef object _call(self, tuple inputs):
        cdef _cxx.Run run
        cdef Kind kind = self.kind_for(inputs)
        cdef _cxx.StreamScope scope
        if self.streamed:
            self._enter(None, scope)
        cdef tuple leaves = self._run(inputs, run)
        return self._result(run.outputs, leaves, kind)

    cdef object _result(self, vector[_cxx.Tensor]& outputs, tuple leaves, Kind kind):
        """What a call gives, of the outputs."""
        if self.structure is None or self.rebuild is not None or (
                self.structure.result.kind != _LEAF):
            return self._rebuild(_outputs(outputs, leaves, kind))
        return _output(outputs[0], leaves, kind)

    cdef object _rebuild(self, list outputs):
        if self.structure is None:
            return outputs
        return self.structure.build(outputs) if self.rebuild is None else self.rebuild(outputs)

    @cython.binding(False)
    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the model on a flat sequence of arrays and return its outputs as a flat list.

        The GIL is released while waiting for a runner and while the model runs. Outputs own their
        memory; one that shares memory with an input keeps that input alive.
        """
        return self.run_all(tuple(inputs))

    cdef list run_all(self, tuple inputs):
        cdef Kind kind = self.kind_for(inputs)
        cdef _cxx.Run run
        cdef _cxx.StreamScope scope
        if self.streamed:
            self._enter(None, scope)
        cdef tuple leaves = self._run(inputs, run)
        return _outputs(run.outputs, leaves, kind)

    def run_measured(
        self, inputs: Sequence[Any], stream: int | None = None
    ) -> tuple[list[Any], int, int | None]:
        """The same, with the number of the generation that ran, and the bytes that the run took on
        its device at most: None on the CPU.
        """
        cdef tuple leaves = tuple(inputs)
        cdef Kind kind = self.kind_for(leaves)
        cdef _cxx.Run run
        cdef _cxx.StreamScope scope
        cdef int64_t before = 0, after = 0, peak = 0
        self._enter(stream, scope)
        if not self.place.is_cpu():
            self._measure(&before, &peak, True)
        leaves = self._run(leaves, run)
        if not self.place.is_cpu():
            self._measure(&after, &peak, False)
        made = _outputs(run.outputs, leaves, kind)
        return made, run.number, None if self.place.is_cpu() else max(peak - before, 0)

    cdef int _measure(self, int64_t* now, int64_t* peak, bint start) except -1:
        cdef Failure failure
        if start:
            failure = _cxx.forget_peak(self.place)
            if failure.fault != Fault.kNone:
                _raise(failure)
        failure = _cxx.memory_of(self.place, now[0], peak[0])
        if failure.fault != Fault.kNone:
            _raise(failure)
        return 0

    cdef tuple _run(self, tuple inputs, _cxx.Run& run):
        """Run on these inputs. Returns what they lay on."""
        cdef tuple leaves = self._prepare(inputs, run.inputs, False)
        self._execute(run)
        return leaves

    def run_boxed(self, list inputs, stream: int | None = None) -> list[Any]:
        """The same, after emptying the list. An input that nobody else holds is given back as soon
        as the model is done with it, in the middle of the run.
        """
        # That takes the GIL while a permit is held, which cannot block: whoever waits for a permit
        # does so without the GIL, or is the only thread that there is.
        cdef tuple leaves = tuple(inputs)
        inputs.clear()
        cdef Kind kind = self.kind_for(leaves)
        cdef _cxx.Run run
        cdef _cxx.StreamScope scope
        self._enter(stream, scope)
        leaves = self._prepare(leaves, run.inputs, True)
        self._execute(run)
        return _outputs(run.outputs, leaves, kind)

    def run_to(
        self,
        inputs: Sequence[Any],
        outputs: str | None = None,
        out: Sequence[Any] | None = None,
        stream: int | None = None,
    ) -> list[Any]:
        """Run as `run` does, with outputs of this kind or in these arrays, None for a new one; on
        the stream with this handle.
        """
        cdef tuple leaves = tuple(inputs)
        cdef Kind kind
        if outputs is not None:
            kind = kind_named(outputs)
        else:
            kind = self.kind_for(leaves)
        cdef _cxx.Run run
        cdef vector[_cxx.Tensor] targets
        cdef _cxx.StreamScope scope
        self._enter(stream, scope)
        if out is None:
            leaves = self._run(leaves, run)
            return _outputs(run.outputs, leaves, kind)
        _targets(out, targets, self.place)
        run.targets = &targets
        leaves = self._prepare(leaves, run.inputs, False)
        self._execute(run, out)
        return [
            _output(run.outputs[i], leaves, kind) if array is None else array
            for i, array in enumerate(out)]

    cdef int _execute(self, _cxx.Run& run, out=None) except -1:
        """Run, and copy the outputs into the targets if there are any, which lie on the arrays of
        `out`.
        """
        cdef Failure failure
        cdef int64_t begun, ended
        failure.fault = Fault.kBusy
        if self.may_keep_gil and self.solo.keeps_gil():
            failure = _cxx.execute(deref(self.permits), self.threads, run)
        while self._goes_on(failure):
            begun = self.solo.begin()
            with nogil:
                failure = _cxx.execute_without_gil(deref(self.permits), self.threads, run)
            ended = _cxx.taken()
            if failure.fault == Fault.kNone:
                self.solo.end(begun, ended)
        if run.wrong >= 0:
            _refuse_targets(run, out)
        return 0

    cdef bint _goes_on(self, const Failure& failure) except -1:
        """Whether there was no runner yet. Handles signals then, and raises what is a failure."""
        if failure.fault == Fault.kNone:
            return False
        if failure.fault == Fault.kUnset:
            raise ConstantError(self.unset)
        if failure.fault != Fault.kBusy:
            _raise(failure)
        PyErr_CheckSignals()
        return True

    def time_runs(self, inputs: Sequence[Any], size_t repeats) -> float:
        """Seconds that `repeats` runs take in a C++ loop: what no Python call can beat."""
        cdef vector[_cxx.Tensor] tensors
        cdef Failure failure
        cdef double seconds = 0
        cdef tuple leaves = self._prepare(tuple(inputs), tensors, False)
        failure.fault = Fault.kBusy
        while self._goes_on(failure):
            with nogil:
                failure = _cxx.time_runs(
                    deref(self.permits), self.threads, tensors, repeats, seconds)
        del leaves
        return seconds

    cdef tuple _prepare(self, tuple inputs, vector[_cxx.Tensor]& tensors, bint release):
        """Check everything and fill `tensors`. Returns the arrays that they lie on."""
        if not self.permits:
            raise ModelClosedError("the model was never loaded")
        return self.wanted.prepare(inputs, tensors, release)

    def examine(self, inputs: Sequence[Any]) -> list[Any]:
        """What a run would do with each input, without running.

        Returns
        -------
        list of tuple
            Per input the core's view of it, itself or a Tensor over its memory; and what would be
            passed on: the same, something else, or the InputError that refuses it.
        """
        if not self.permits:
            raise ModelClosedError("the model was never loaded")
        return self.wanted.examine(list(inputs))

    def bind(
        self,
        inputs: Sequence[Any],
        out: Sequence[Any] | None,
        outputs: str | None = None,
        owner: object = None,
        stream: int | None = None,
    ) -> Bound:
        """A callable that runs on these arrays, as they are at each call; see `Bound`.

        It keeps `owner` alive.
        """
        cdef _cxx.StreamScope scope
        self._enter(stream, scope)
        cdef Bound bound = Bound(self, tuple(inputs), None if out is None else tuple(out))
        bound.owner = owner
        bound.streamed, bound.stream = self.streamed or stream is not None, self.stream
        if stream is not None:
            bound.stream = _stream_number(self.place, stream)
        if outputs is not None:
            bound.kind = kind_named(outputs)
        return bound

    def close(self) -> None:
        """Wait for the runs that are under way, and serve nothing any more.

        Harmless the second time. The generation that was served is freed unless somebody holds it.
        """
        if self.permits:
            with nogil:
                deref(self.permits).close()
