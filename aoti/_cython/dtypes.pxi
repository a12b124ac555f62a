cdef int _UNKNOWN = -1

# The dtype names of torch, which are also those of numpy and ml_dtypes, by torch's own number.
_DTYPES: dict[str, int] = {
    "bool": <int>ScalarType.Bool,
    "uint8": <int>ScalarType.Byte,
    "int8": <int>ScalarType.Char,
    "int16": <int>ScalarType.Short,
    "int32": <int>ScalarType.Int,
    "int64": <int>ScalarType.Long,
    "uint16": <int>ScalarType.UInt16,
    "uint32": <int>ScalarType.UInt32,
    "uint64": <int>ScalarType.UInt64,
    "float16": <int>ScalarType.Half,
    "bfloat16": <int>ScalarType.BFloat16,
    "float32": <int>ScalarType.Float,
    "float64": <int>ScalarType.Double,
    "complex32": <int>ScalarType.ComplexHalf,
    "complex64": <int>ScalarType.ComplexFloat,
    "complex128": <int>ScalarType.ComplexDouble,
    "float8_e4m3fn": <int>ScalarType.Float8_e4m3fn,
    "float8_e4m3fnuz": <int>ScalarType.Float8_e4m3fnuz,
    "float8_e5m2": <int>ScalarType.Float8_e5m2,
    "float8_e5m2fnuz": <int>ScalarType.Float8_e5m2fnuz,
    "float8_e8m0fnu": <int>ScalarType.Float8_e8m0fnu,
}
_NAMES: dict[int, str] = {number: name for name, number in _DTYPES.items()}

# numpy's builtin type numbers end below 32, torch's below 64; -1 where one has no counterpart.
cdef int[32] _torch_dtype
cdef int[64] _numpy_dtype

cdef int _fill_dtype_tables() except -1:
    for i in range(32):
        _torch_dtype[i] = _UNKNOWN
    for i in range(64):
        _numpy_dtype[i] = _UNKNOWN
    for name, number in _DTYPES.items():
        if hasattr(np, name):
            dtype = np.dtype(name)
            _torch_dtype[dtype.num] = number
            _numpy_dtype[<int>number] = dtype.num
    # C's long and long long are both int64 here, but numpy counts them as two types.
    _torch_dtype[<int>cnp.NPY_LONGLONG] = <int>ScalarType.Long
    _torch_dtype[<int>cnp.NPY_ULONGLONG] = <int>ScalarType.UInt64
    return 0

_fill_dtype_tables()


cdef int _dtype_number(cnp.ndarray array) except -2:
    """Torch's number for an array's dtype, -1 if there is none."""
    cdef int number = cnp.PyArray_TYPE(array)
    if 0 <= number < 32:
        return _torch_dtype[number]
    # Types registered by ml_dtypes: bfloat16, float8. Its other types have other names.
    return _DTYPES.get(array.dtype.name, _UNKNOWN)


cdef str _dtype_name(int dtype):
    return _NAMES.get(dtype, f"dtype number {dtype}")


cdef cnp.dtype _numpy_type(int dtype):
    """The numpy dtype for one of torch's."""
    cdef int number = _numpy_dtype[dtype] if 0 <= dtype < 64 else _UNKNOWN
    if number != _UNKNOWN:
        return cnp.PyArray_DescrFromType(number)
    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _dtype_name(dtype)))
    except (ImportError, AttributeError) as error:
        raise ExecutionError(
            f"numpy has no type for {_dtype_name(dtype)}; install ml_dtypes (pip install "
            "ml_dtypes), or load the model with outputs='dlpack'"
        ) from error
