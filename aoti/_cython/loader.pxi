cdef class Loader:
    """One loaded model: its permits, its input specifications, and the generation that it serves.

    A new one serves none yet: see `open` and `serve`.

    Parameters
    ----------
    path : str
        A directory (torch 2.13 or newer) or a zip file that `aoti.cache` wrote.
    model_name : str
        The model in it.
    single_threaded : bool
        Load without the container's own locking. Calls exclude each other all the same.
    num_runners : int
        How many runs may go on at once.
    device_index : int
        Which device of the package's kind; -1 is the CPU or the current device.
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

    Attributes
    ----------
    unset : str
        What a run is refused with as long as no generation is served.

    Notes
    -----
    All methods may be called from any thread. `open`, runs and `close` release the GIL.
    While a run waits for its turn, signals are handled.
    """

    cdef unique_ptr[_cxx.Permits] permits
    cdef string path
    cdef string model_name
    cdef bint single_threaded
    cdef size_t num_runners
    cdef signed char device_index
    cdef public str unset
    cdef vector[InputSpec] specs
    cdef InputSpec unknown  # of inputs that nothing is known of
    cdef vector[Range] ranges
    cdef bint known
    cdef bint ranges_hold
    cdef bint validate
    cdef bint bounded
    cdef int threads
    cdef object repair
    cdef object refuse_values
    cdef bint follow  # outputs are of the inputs' kind
    cdef Kind kind    # else of this one

    def __init__(
        self,
        str path,
        str model_name,
        *,
        bint single_threaded,
        size_t num_runners,
        int device_index,
        int threads,
        inputs: Sequence[tuple[Any, Any, Any, Any, bool, Any]] | None,
        ranges: Sequence[tuple[int | None, int | None]],
        bint ranges_hold,
        bint validate,
        repair: Callable[[int, Sequence[Any]], Any],
        refuse_values: Callable[[int, Sequence[Any]], None],
        outputs: str | None = None,
    ) -> None:
        if self.permits:
            raise RuntimeError("a Loader is initialised once")
        self.path, self.model_name = path.encode(), model_name.encode()
        self.single_threaded, self.num_runners = single_threaded, num_runners
        self.device_index = device_index
        self.unset = "the model has no weights"
        self.repair, self.refuse_values = repair, refuse_values
        self.validate, self.ranges_hold, self.threads = validate, ranges_hold, threads
        self.known = inputs is not None
        self.follow = outputs is None
        self.kind = None if outputs is None else kind_named(outputs)
        self.unknown.writable = True  # the model may write into it
        if len(ranges) > _cxx.kMaxSymbols:
            raise IncompatiblePackageError(
                f"the model takes more than {_cxx.kMaxSymbols} independent sizes")
        for least, most in ranges:
            self._add_range(least, most)
        for dtype, sizes, order, strides, mutated, values in inputs or ():
            self._add_spec(dtype, sizes, order, strides, mutated, values)
        self.permits = make_unique[_cxx.Permits](num_runners)

    def __dealloc__(self):
        if self.permits:
            with nogil:
                deref(self.permits).close()

    def open(self, uint64_t number) -> Generation:
        """Make a container for the model, with the weights that stand in its code."""
        cdef Generation generation = Generation.__new__(Generation)
        cdef Failure failure
        if not self.permits:
            raise ModelClosedError("the model was never loaded")
        generation.loader = self
        with nogil:
            failure = _cxx.open(
                generation.held, self.path, self.model_name, self.single_threaded,
                self.num_runners, self.device_index, number)
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

    cdef int _add_range(self, least, most) except -1:
        cdef Range range
        if least is not None:
            range.least = least
        if most is not None:
            range.most = most
        self.ranges.push_back(range)
        return 0

    cdef _cxx.Size _size(self, size) except *:
        cdef _cxx.Size wanted
        if isinstance(size, int):
            wanted.scale, wanted.offset = 0, size
        else:
            wanted.symbol, wanted.scale, wanted.offset = size
            if not 0 <= wanted.symbol < <int64_t>self.ranges.size():
                raise ValueError(f"no range for symbol {wanted.symbol}")
        return wanted

    cdef int _add_spec(self, dtype, sizes, order, strides, bint mutated, values) except -1:
        cdef InputSpec spec
        spec.writable = mutated
        if dtype is not None:
            if dtype not in _DTYPES:
                raise IncompatiblePackageError(f"the model takes {dtype}, which aoti cannot pass")
            spec.dtype = _DTYPES[dtype]
        if sizes is not None:
            spec.rank = len(sizes)
            for size in sizes:
                spec.sizes.push_back(self._size(size))
            spec.order = order or ()
            spec.strides = strides or ()
        if values is not None:
            spec.bounded = self.bounded = True
            spec.low, spec.high = self._size(values[0]), self._size(values[1])
        self.specs.push_back(spec)
        return 0

    cdef tuple _borrow(
        self, tuple inputs, vector[_cxx.Tensor]& tensors, int64_t* symbols, bint release
    ):
        """Check `inputs`, fill `tensors` and bind `symbols`. Returns what the tensors lie on.

        With `release`, tensors keep writeable inputs alive themselves; None stands in their place.
        """
        cdef Py_ssize_t count = len(inputs)
        cdef int64_t[64] strides
        cdef Borrowed borrowed
        cdef Failure failure
        cdef Kind kind
        cdef Py_ssize_t i
        cdef list kept = None
        self._check_count(count)
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = _cxx.kAny
        tensors.reserve(count)
        for i in range(count):
            leaf = inputs[i]
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                kind = _kind(type(leaf))
                if kind is not None and kind.api == NULL:
                    leaf = _import_or_not(leaf, kind)
            if self._check(i, leaf, borrowed, symbols, strides) != 0:
                leaf = self._repaired(i, leaf, kept or list(inputs), borrowed, symbols, strides)
            failure = _cxx.borrow(borrowed, strides, tensors)
            # A read-only one stays, so that an output that lies in it is found to be read-only.
            if failure.fault == Fault.kNone and release and borrowed.writable:
                Py_INCREF(leaf)
                failure = _cxx.anchor(tensors.back(), <void*>leaf, _release_object)
                if failure.fault != Fault.kNone:
                    Py_DECREF(leaf)
                leaf = None
            if failure.fault != Fault.kNone:
                _raise(failure)
            if leaf is not inputs[i]:
                if kept is None:
                    kept = list(inputs)
                kept[i] = leaf
        return inputs if kept is None else tuple(kept)

    cdef int _check_count(self, Py_ssize_t count) except -1:
        if self.known and count != <Py_ssize_t>self.specs.size():
            raise InputError(
                f"the model takes {self.specs.size()} input{'s' if self.specs.size() != 1 else ''}"
                f", got {count}")
        return 0

    cdef int _check(
        self, Py_ssize_t i, leaf, Borrowed& borrowed, int64_t* symbols, int64_t* strides
    ) except -1:
        """The first thing wrong with an input, a Mismatch; zero is nothing."""
        cdef int mismatch = _look(leaf, borrowed)
        if mismatch != 0:
            return mismatch
        if not self.validate:
            _cxx.own_strides(borrowed, strides)
            return 0
        if type(leaf) is cnp.ndarray and not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>leaf):
            return <int>Mismatch.kLayout
        return <int>_cxx.check(
            self.specs[i] if self.known else self.unknown,
            borrowed, self.ranges.data(), symbols, strides)

    cdef object _repaired(
        self,
        Py_ssize_t i,
        leaf,
        list inputs,
        Borrowed& borrowed,
        int64_t* symbols,
        int64_t* strides,
    ):
        """An array or Tensor to pass in place of an input that does not pass the checks."""
        cdef Kind kind
        cdef int mismatch
        if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
            kind = _kind(type(leaf))
            if kind is not None:
                leaf = _import_or_not(leaf, kind)
        inputs[i] = leaf
        array = self.repair(i, inputs)
        mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch == <int>Mismatch.kRange and not self.ranges_hold:
            self.ranges.assign(self.ranges.size(), Range())
            mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch != 0:
            raise InputError(f"input {i} cannot be passed to the model")
        return array

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the model on a flat sequence of arrays and return its outputs as a flat list.

        The GIL is released while waiting for a runner and while the model runs. Outputs own their
        memory; one that shares memory with an input keeps that input alive.
        """
        cdef tuple leaves = tuple(inputs)
        cdef Kind kind = _kind_of(leaves) if self.follow else self.kind
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        leaves = self._prepare(leaves, tensors, False)
        self._execute(tensors, outputs)
        return _outputs(outputs, leaves, kind)

    def run_numbered(self, inputs: Sequence[Any]) -> tuple[list[Any], int]:
        """The same, with the number of the generation that ran."""
        cdef tuple leaves = tuple(inputs)
        cdef Kind kind = _kind_of(leaves) if self.follow else self.kind
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        cdef uint64_t number
        leaves = self._prepare(leaves, tensors, False)
        self._execute(tensors, outputs, &number)
        return _outputs(outputs, leaves, kind), number

    def run_boxed(self, list inputs) -> list[Any]:
        """The same, after emptying the list. An input that nobody else holds is given back as soon
        as the model is done with it, in the middle of the run.
        """
        # That takes the GIL while a permit is held, which cannot block: whoever waits for a permit
        # does so without the GIL.
        cdef tuple leaves = tuple(inputs)
        inputs.clear()
        cdef Kind kind = _kind_of(leaves) if self.follow else self.kind
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        leaves = self._prepare(leaves, tensors, True)
        self._execute(tensors, outputs)
        return _outputs(outputs, leaves, kind)

    def run_to(
        self, inputs: Sequence[Any], outputs: str | None = None, out: Sequence[Any] | None = None
    ) -> list[Any]:
        """Run as `run` does, with outputs of this kind or in these arrays, None for a new one."""
        cdef tuple leaves = tuple(inputs)
        cdef Kind kind
        if outputs is not None:
            kind = kind_named(outputs)
        else:
            kind = _kind_of(leaves) if self.follow else self.kind
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] made
        cdef vector[_cxx.Tensor] targets
        if out is not None:
            _targets(out, targets)
        leaves = self._prepare(leaves, tensors, False)
        self._execute(tensors, made)
        if out is None:
            return _outputs(made, leaves, kind)
        _write(made, targets, out)
        return [
            _to_kind_or_numpy(made[i], leaves, kind) if array is None else array
            for i, array in enumerate(out)]

    cdef int _execute(
        self,
        vector[_cxx.Tensor]& tensors,
        vector[_cxx.Tensor]& outputs,
        uint64_t* number=NULL,
    ) except -1:
        cdef Failure failure
        cdef uint64_t ran = 0
        failure.fault = Fault.kBusy
        while failure.fault == Fault.kBusy:
            with nogil:
                failure = _cxx.run(deref(self.permits), self.threads, tensors, outputs, ran)
            if failure.fault == Fault.kBusy:
                PyErr_CheckSignals()
        if failure.fault == Fault.kUnset:
            raise ConstantError(self.unset)
        if failure.fault != Fault.kNone:
            _raise(failure)
        if number != NULL:
            number[0] = ran
        return 0

    def time_runs(self, inputs: Sequence[Any], size_t repeats) -> float:
        """Seconds that `repeats` runs take in a C++ loop: what no Python call can beat."""
        cdef vector[_cxx.Tensor] tensors
        cdef Failure failure
        cdef double seconds = 0
        cdef tuple leaves = self._prepare(tuple(inputs), tensors, False)
        failure.fault = Fault.kBusy
        while failure.fault == Fault.kBusy:
            with nogil:
                failure = _cxx.time_runs(
                    deref(self.permits), self.threads, tensors, repeats, seconds)
            if failure.fault == Fault.kBusy:
                PyErr_CheckSignals()
        if failure.fault != Fault.kNone:
            _raise(failure)
        del leaves
        return seconds

    def examine(self, inputs: Sequence[Any]) -> list[Any]:
        """What a run would do with each input, without running.

        Returns
        -------
        list of tuple
            Per input the core's view of it, itself or a Tensor over its memory; and what would be
            passed on: the same, something else, or the InputError that refuses it.
        """
        cdef vector[_cxx.Tensor] tensors
        cdef int64_t[64] symbols
        cdef int64_t[64] strides
        cdef Borrowed borrowed
        cdef Failure failure
        cdef Kind kind
        cdef Py_ssize_t i
        cdef int64_t wrong = -1
        cdef list leaves = list(inputs), found = []
        self._check_count(len(leaves))
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = _cxx.kAny
        for i in range(len(leaves)):
            leaf = leaves[i]
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                kind = _kind(type(leaf))
                if kind is not None:
                    leaf = _import_or_not(leaf, kind)
            view = leaf
            try:
                if self._check(i, leaf, borrowed, symbols, strides) != 0:
                    leaf = self._repaired(i, leaf, list(leaves), borrowed, symbols, strides)
                failure = _cxx.borrow(borrowed, strides, tensors)
                if failure.fault != Fault.kNone:
                    _raise(failure)
                found.append((view, leaf))
                leaves[i] = leaf
            except InputError as error:
                found.append((view, error))
        if tensors.size() == self.specs.size() and self.bounded and self.validate:
            failure = _cxx.find_out_of_range(self.specs, tensors, symbols, wrong)
            if failure.fault != Fault.kNone:
                _raise(failure)
            if wrong >= 0:
                try:
                    self.refuse_values(wrong, leaves)
                except InputError as error:
                    found[wrong] = (found[wrong][0], error)
        return found

    cdef tuple _prepare(self, tuple inputs, vector[_cxx.Tensor]& tensors, bint release):
        """Check everything and fill `tensors`. Returns the arrays that they lie on."""
        cdef int64_t[64] symbols
        if not self.permits:
            raise ModelClosedError("the model was never loaded")
        cdef tuple leaves = self._borrow(inputs, tensors, symbols, release)
        if self.bounded and self.validate:
            self._check_values(tensors, symbols, inputs)
        return leaves

    cdef int _check_values(
        self, vector[_cxx.Tensor]& tensors, int64_t* symbols, tuple inputs
    ) except -1:
        cdef int64_t wrong = -1
        cdef Failure failure
        with nogil:
            failure = _cxx.find_out_of_range(self.specs, tensors, symbols, wrong)
        if failure.fault != Fault.kNone:
            _raise(failure)
        if wrong >= 0:
            self.refuse_values(wrong, inputs)
            raise InputError(f"input {wrong} has values that the model does not take")
        return 0

    def bind(
        self,
        inputs: Sequence[Any],
        out: Sequence[Any] | None,
        rebuild: Callable[[list[Any]], Any],
        outputs: str | None = None,
        owner: object = None,
    ) -> Bound:
        """A callable that runs on these arrays, as they are at each call; see `Bound`.

        It keeps `owner` alive.
        """
        cdef Bound bound = Bound(self, tuple(inputs), None if out is None else tuple(out), rebuild)
        bound.owner = owner
        if outputs is not None:
            bound.kind = kind_named(outputs)
        return bound

    def close(self) -> None:
        """Wait for the runs that are under way, and serve nothing more. Harmless the second time.

        The generation that was served is freed unless somebody holds it.
        """
        if self.permits:
            with nogil:
                deref(self.permits).close()
