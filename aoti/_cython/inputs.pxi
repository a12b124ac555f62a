cdef inline void _borrowed(cnp.ndarray array, int dtype, Borrowed& out) noexcept:
    out.data = cnp.PyArray_DATA(array)
    out.dtype = dtype
    out.rank = cnp.PyArray_NDIM(array)
    out.itemsize = cnp.PyArray_ITEMSIZE(array)
    out.unit = 1
    out.sizes = <const int64_t*>cnp.PyArray_DIMS(array)
    out.strides = <const int64_t*>cnp.PyArray_STRIDES(array)
    out.writable = cnp.PyArray_ISWRITEABLE(array)


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


cdef object _import_or_not(leaf, Kind kind):
    """A Tensor over the leaf's memory, or the leaf itself: the repair then says what is wrong."""
    if type(leaf) is Tensor:
        return leaf
    try:
        return _import(leaf, kind)
    except Exception:
        return leaf
