cdef inline void _borrowed(cnp.ndarray array, int dtype, Borrowed& out) noexcept:
    out.data = cnp.PyArray_DATA(array)
    out.dtype = dtype
    out.rank = cnp.PyArray_NDIM(array)
    out.itemsize = cnp.PyArray_ITEMSIZE(array)
    out.unit = 1
    out.sizes = <const int64_t*>cnp.PyArray_DIMS(array)
    out.strides = <const int64_t*>cnp.PyArray_STRIDES(array)
    out.writable = cnp.PyArray_ISWRITEABLE(array)
    out.place = _cxx.Place()
    out.anywhere = True


cdef int _look(leaf, Borrowed& out) except -1:
    """What a leaf says of itself. Not kNone if the core cannot look at it."""
    cdef DLTensor described
    cdef Kind kind
    cdef int mismatch
    # Exactly these types: a subclass may mean something else by its data, as masks do.
    if type(leaf) is cnp.ndarray:
        _borrowed(<cnp.ndarray>leaf, _dtype_number(<cnp.ndarray>leaf), out)
        if out.dtype == _UNKNOWN:
            return <int>Mismatch.kDtype
        return <int>Mismatch.kNone
    if type(leaf) is Tensor:
        if not (<Tensor>leaf).tensor.defined():
            return <int>Mismatch.kNull
        _cxx.describe((<Tensor>leaf).tensor, not (<Tensor>leaf).readonly, out)
        return <int>Mismatch.kNone
    kind = _kind(type(leaf))
    if kind is None or kind.api == NULL:
        return <int>Mismatch.kLayout
    if kind.api.dltensor_from_py_object_no_sync(<void*>leaf, &described) != 0:
        PyErr_Clear()  # it says why when it is asked again
        return <int>Mismatch.kLayout
    mismatch = <int>_cxx.describe_foreign(described, not kind.immutable, out)
    if mismatch == <int>Mismatch.kNone and kind.lazy:
        # torch's C functions do not tell of a pending conjugation, nor of a pending negation,
        # which the imaginary part of a conjugated tensor has. Such a part is strided.
        if out.dtype in (<int>ScalarType.ComplexFloat, <int>ScalarType.ComplexDouble,
                         <int>ScalarType.ComplexHalf):
            if leaf.is_conj() or leaf.is_neg():
                return <int>Mismatch.kLayout
        elif not _cxx.has_unit_stride(out) and leaf.is_neg():
            return <int>Mismatch.kLayout
    return mismatch


cdef bint _all_arrays(tuple values) except *:
    """Whether all are of types whose values are arrays."""
    for value in values:
        if type(value) is not cnp.ndarray and type(value) is not Tensor and (
                _kind(type(value)) is None):
            return False
    return True


cdef object _imported(leaf, bint always):
    """A Tensor over the memory of another library's array, or the leaf itself: what is wrong with
    it, the repair then says. Not `always`: only where its library has no C functions to look at it.
    """
    if type(leaf) is cnp.ndarray or type(leaf) is Tensor:
        return leaf
    cdef Kind kind = _kind(type(leaf))
    if kind is None or (kind.api != NULL and not always):
        return leaf
    try:
        return _import(leaf, kind)
    except Exception:
        return leaf


@cython.final
cdef class Inputs:
    """What the inputs of a model must be, and the tensors over them. Parameters as of `Loader`."""

    cdef vector[InputSpec] specs
    cdef InputSpec unknown  # of inputs that nothing is known of
    cdef vector[Range] ranges
    cdef bint known
    cdef bint ranges_hold
    cdef bint validate
    cdef bint bounded  # some values are checked
    cdef _cxx.Place place
    cdef bint uploads  # what lies on the host may be taken to the place
    cdef object repair
    cdef object refuse_values

    def __init__(
        self,
        inputs: Sequence[tuple[Any, Any, Any, Any, bool, Any]] | None,
        ranges: Sequence[tuple[int | None, int | None]],
        *,
        bint ranges_hold,
        bint validate,
        repair: Callable[[int, Sequence[Any]], Any],
        refuse_values: Callable[[int, Sequence[Any]], None],
    ) -> None:
        self.uploads = False
        self.repair, self.refuse_values = repair, refuse_values
        self.validate, self.ranges_hold = validate, ranges_hold
        self.known = inputs is not None
        self.unknown.writable = True  # the model may write into it
        if len(ranges) > _cxx.kMaxSymbols:
            raise IncompatiblePackageError(
                f"the model takes more than {_cxx.kMaxSymbols} independent sizes")
        for least, most in ranges:
            self._add_range(least, most)
        for dtype, sizes, order, strides, mutated, values in inputs or ():
            self._add_spec(dtype, sizes, order, strides, mutated, values)

    cdef int lie_on(self, _cxx.Place& place, hosts) except -1:
        """Say on which device inputs lie, but for those that are listed, which lie on the CPU."""
        cdef size_t i
        self.place = self.unknown.place = place
        self.uploads = not place.is_cpu()
        for i in range(self.specs.size()):
            if i not in hosts:
                self.specs[i].place = place
        return 0

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
        if values is not None and self.validate:
            spec.bounded = self.bounded = True
            spec.low, spec.high = self._size(values[0]), self._size(values[1])
        self.specs.push_back(spec)
        return 0

    cdef tuple borrow(
        self, tuple inputs, vector[_cxx.Tensor]& tensors, int64_t* symbols, bint release
    ):
        """Check `inputs`, fill `tensors` and bind `symbols`. Returns what the tensors lie on.

        With `release`, tensors keep writeable inputs alive themselves; None stands in their place.
        """
        cdef Py_ssize_t count = len(inputs)
        cdef int64_t[64] strides
        cdef Borrowed borrowed
        cdef Failure failure
        cdef Py_ssize_t i
        cdef list kept = None
        self._check_count(count)
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = _cxx.kAny
        tensors.reserve(count)
        for i in range(count):
            leaf = _imported(inputs[i], False)
            if self._check(i, leaf, borrowed, symbols, strides) != 0:
                leaf = self._repaired(i, leaf, kept or list(inputs), borrowed, symbols, strides)
            if not borrowed.place.is_cpu():
                _await(leaf, borrowed.place)
            failure = _cxx.borrow(borrowed, strides, tensors)
            if failure.fault != Fault.kNone:
                _raise(failure)
            # A read-only one stays, so that an output that lies in it is found to be read-only.
            if release and borrowed.writable:
                _hold(tensors.back(), leaf)
                leaf = None
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
        # By address: an expression of both would copy them.
        cdef const InputSpec* spec = &self.specs[i] if self.known else &self.unknown
        if not _cxx.placed(deref(spec), borrowed):
            return <int>Mismatch.kDevice
        if not self.validate:
            _cxx.own_strides(borrowed, strides)
            return 0
        if type(leaf) is cnp.ndarray and not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>leaf):
            return <int>Mismatch.kLayout
        return <int>_cxx.check(deref(spec), borrowed, self.ranges.data(), symbols, strides)

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
        cdef int mismatch = self._check(i, leaf, borrowed, symbols, strides)
        if mismatch != <int>Mismatch.kDevice:  # which is told of the array that was given
            inputs[i] = _imported(leaf, True)
        array = self.repair(i, inputs)
        mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch == <int>Mismatch.kRange and not self.ranges_hold:
            self.ranges.assign(self.ranges.size(), Range())
            mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch != 0:
            raise InputError(f"input {i} cannot be passed to the model")
        return array

    cdef tuple prepare(self, tuple inputs, vector[_cxx.Tensor]& tensors, bint release):
        """Check everything and fill `tensors`. Returns the arrays that they lie on."""
        cdef int64_t[64] symbols
        cdef tuple leaves = self.borrow(inputs, tensors, symbols, release)
        if self.bounded:
            self.check_values(tensors, symbols, inputs)
        if self.uploads:
            self.upload(tensors)
        return leaves

    cdef int upload(self, vector[_cxx.Tensor]& tensors) except -1:
        cdef Failure failure
        with nogil:
            failure = _cxx.upload(self.specs, self.place, tensors)
        if failure.fault != Fault.kNone:
            _raise(failure)
        return 0

    cdef int check_values(
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

    cdef list examine(self, list leaves):
        """See `Loader.examine`."""
        cdef vector[_cxx.Tensor] tensors
        cdef int64_t[64] symbols
        cdef int64_t[64] strides
        cdef Borrowed borrowed
        cdef Failure failure
        cdef Py_ssize_t i
        cdef int64_t wrong = -1
        cdef list found = []
        self._check_count(len(leaves))
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = _cxx.kAny
        for i in range(len(leaves)):
            leaf = view = _imported(leaves[i], True)
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
        if tensors.size() == self.specs.size() and self.bounded:
            failure = _cxx.find_out_of_range(self.specs, tensors, symbols, wrong)
            if failure.fault != Fault.kNone:
                _raise(failure)
            if wrong >= 0:
                try:
                    self.refuse_values(wrong, leaves)
                except InputError as error:
                    found[wrong] = (found[wrong][0], error)
        return found
