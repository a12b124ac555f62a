# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Dtypes by name, by DLPack's number and by numpy's: lookup tables over aoti.signature.dtypes."""

cimport numpy as cnp

from aoti.engine.cxx.dlpack cimport DLDataType
from aoti.engine.cxx.dtype cimport (
    DType,
    dl_type_of,
    dtype_of,
    kDTypeSlots,
    kNoDType,
    slot_of,
)

import numpy as np
from aoti.errors import ExecutionError
from aoti.signature.dtypes import DTYPES, numpy_dtype

cnp.import_array()

# By numpy's builtin type numbers, which end below 32; kNoDType if torch lacks the type.
cdef DType[32] _by_numpy
cdef dict _by_name = {}
cdef dict _names = {}
# The other way, by slot: the dtype that is meant, and its number.
cdef DType[kDTypeSlots] _in_slot
cdef int[kDTypeSlots] _numpy_number


cdef int _fill() except -1:
    cdef DLDataType type
    for i in range(32):
        _by_numpy[i] = kNoDType
    for i in range(kDTypeSlots):
        _in_slot[i] = kNoDType
    for name, row in DTYPES.items():
        type.code, type.bits, type.lanes = row.dlpack_code, row.bits, 1
        number = dtype_of(type)
        _by_name[name], _names[number] = number, name
        if hasattr(np, name):
            dtype = np.dtype(name)
            _by_numpy[dtype.num] = number
            _in_slot[slot_of(number)], _numpy_number[slot_of(number)] = number, dtype.num
    # C's long and long long are both int64 here, but numpy counts them as two types.
    _by_numpy[<int>cnp.NPY_LONGLONG] = _by_name["int64"]
    _by_numpy[<int>cnp.NPY_ULONGLONG] = _by_name["uint64"]
    return 0


_fill()


cdef DType dtype_of_array(cnp.ndarray array) except? 1:
    """The dtype of a numpy array, kNoDType if torch does not have it."""
    cdef int number = cnp.PyArray_TYPE(array)
    if 0 <= number < 32:
        return _by_numpy[number]
    # Types registered by ml_dtypes: bfloat16, float8. Its other types have other names.
    return _by_name.get(array.dtype.name, kNoDType)


cdef DType dtype_named(str name) except? 1:
    """The dtype of a name, kNoDType if there is none."""
    return _by_name.get(name, kNoDType)


cdef bint is_known(DType dtype) except -1:
    """Whether torch has the dtype."""
    return dtype in _names


cdef str dtype_name(DType dtype):
    cdef DLDataType type = dl_type_of(dtype)
    name = _names.get(dtype)
    return f"DLPack dtype {type.code}, {type.bits} bits" if name is None else name


cdef cnp.dtype numpy_type(DType dtype):
    """The numpy dtype for a dtype; ml_dtypes has those that numpy lacks."""
    cdef int slot = slot_of(dtype)
    if _in_slot[slot] == dtype and dtype != kNoDType:
        return cnp.PyArray_DescrFromType(_numpy_number[slot])
    try:
        return numpy_dtype(dtype_name(dtype))
    except ValueError as error:
        raise ExecutionError(
            f"numpy has no type for {dtype_name(dtype)}; install ml_dtypes (pip install "
            "ml_dtypes), or load the model with outputs='dlpack'"
        ) from error
