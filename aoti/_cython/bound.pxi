cdef class Bound:
    """A model with its inputs, and perhaps its outputs, fixed. Made by `AOTIModel.bind`.

    Each call runs the model on what the arrays then hold. Their memory and shapes were checked
    once; values that index tables are checked at each call.
    """

    cdef Loader loader
    cdef tuple inputs  # what was given
    cdef tuple leaves  # what the tensors lie on
    cdef tuple out
    cdef object result  # what a call gives if all outputs are fixed
    cdef object owner
    cdef Kind kind
    cdef vector[_cxx.Tensor] tensors
    cdef vector[_cxx.Tensor] targets
    cdef vector[void*] moving  # where the inputs lay that their library can move
    cdef bint complete
    cdef bint streamed
    cdef int64_t stream
    cdef int64_t[64] symbols

    def __init__(self, Loader loader, tuple inputs, out: tuple[Any, ...] | None) -> None:
        if not loader.permits:
            raise ModelClosedError("the model was never loaded")
        self.loader, self.inputs = loader, inputs
        self.kind = loader.kind_for(inputs)
        self.tensors.clear()
        self.targets.clear()
        self.moving.clear()
        self.leaves = loader.wanted.borrow(inputs, self.tensors, self.symbols, False)
        cdef Borrowed borrowed
        for leaf in self.leaves:
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                _look(leaf, borrowed)
                self.moving.push_back(borrowed.data)
        self.out = out
        if out is not None:
            _targets(out, self.targets, loader.place)
            self.complete = all(array is not None for array in out)
            self.result = loader._rebuild(list(out)) if self.complete else None

    def __call__(self) -> Any:
        """Run; give new outputs, or the arrays that the outputs were written into."""
        cdef _cxx.Run run
        cdef Loader loader = self.loader
        cdef _cxx.StreamScope scope
        if self.streamed:
            loader._enter_number(self.stream, scope)
        if not self.moving.empty():
            self._check_places()
        run.inputs = self.tensors
        if loader.wanted.bounded:
            loader.wanted.check_values(run.inputs, self.symbols, self.inputs)
        if self.out is None:
            loader._execute(run)
            return loader._result(run.outputs, self.leaves, self.kind)
        run.targets = &self.targets
        loader._execute(run, self.out)
        if self.complete:
            return self.result
        return loader._rebuild([
            _output(run.outputs[i], self.leaves, self.kind) if array is None else array
            for i, array in enumerate(self.out)])

    cdef int _check_places(self) except -1:
        """torch's resize_ and set_ give a tensor other memory, whoever else holds it."""
        cdef Borrowed borrowed
        cdef size_t n = 0
        for leaf in self.leaves:
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                if _look(leaf, borrowed) != 0 or borrowed.data != self.moving[n]:
                    raise InputError("a bound tensor was given other memory; bind again")
                n += 1
        return 0


@cython.auto_pickle(False)  # that is the class's own business
cdef class Caller:
    """A base of models' classes that has Python enter a call without a frame: a third of a
    microsecond less.

    It takes the calls whose arguments are exactly as exported, and runs without options; the others
    go to the class that is next in order.
    """

    cdef public Loader _loader

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        cdef tuple leaves = None
        if self._loader is not None and self._loader.structure is not None:
            leaves = self._loader.structure.take(args, kwargs)
        if leaves is None:
            return super().__call__(*args, **kwargs)
        return self._loader._call(leaves)

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def run(self, inputs: Sequence[Any], *, outputs=None, out=None, stream=None) -> list[Any]:
        """Run on a flat sequence of arrays, one per tensor: see `aoti.AOTIModel.run`."""
        if outputs is None and out is None and stream is None and (
                type(inputs) is list or type(inputs) is tuple) and self._loader is not None:
            return self._loader.run_all(tuple(inputs))
        return super().run(inputs, outputs=outputs, out=out, stream=stream)
