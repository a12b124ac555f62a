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
    cdef object rebuild
    cdef object owner
    cdef Kind kind
    cdef vector[_cxx.Tensor] tensors
    cdef vector[_cxx.Tensor] targets
    cdef vector[void*] moving  # where the inputs lay that their library can move
    cdef bint complete
    cdef int64_t[64] symbols

    def __init__(
        self,
        Loader loader,
        tuple inputs,
        out: tuple[Any, ...] | None,
        rebuild: Callable[[list[Any]], Any],
    ) -> None:
        if not loader.permits:
            raise ModelClosedError("the model was never loaded")
        self.loader, self.inputs, self.rebuild = loader, inputs, rebuild
        self.kind = _kind_of(inputs) if loader.follow else loader.kind
        self.tensors.clear()
        self.targets.clear()
        self.moving.clear()
        self.leaves = loader._borrow(inputs, self.tensors, self.symbols, False)
        cdef Borrowed borrowed
        for leaf in self.leaves:
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                _look(leaf, borrowed)
                self.moving.push_back(borrowed.data)
        self.out = out
        if out is not None:
            _targets(out, self.targets)
            self.complete = all(array is not None for array in out)
            self.result = rebuild(list(out)) if self.complete else None

    def __call__(self) -> Any:
        """Run; give new outputs, or the arrays that the outputs were written into."""
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        cdef Loader loader = self.loader
        if not self.moving.empty():
            self._check_places()
        tensors = self.tensors
        if loader.bounded and loader.validate:
            loader._check_values(tensors, self.symbols, self.inputs)
        loader._execute(tensors, outputs)
        if self.out is None:
            return self.rebuild(_outputs(outputs, self.leaves, self.kind))
        _write(outputs, self.targets, self.out)
        if self.complete:
            return self.result
        return self.rebuild([
            _to_kind_or_numpy(outputs[i], self.leaves, self.kind) if array is None else array
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
