from libc.stdint cimport int64_t

from cpython.object cimport PyObject

from aoti.engine._core._tensor cimport Tensor
from aoti.engine.cxx.dlpack cimport DLDevice, DLPackExchangeAPI

cdef extern from "Python.h":
    ctypedef object (*PyCFunction)(object self, PyObject* args)
    PyCFunction PyCFunction_GetFunction(object function) except NULL
    int PyCFunction_GetFlags(object function) except -1
    const int METH_NOARGS


cdef class ArrayLibrary:
    cdef readonly str name
    cdef object wrap
    cdef bint immutable
    cdef bint lazy
    cdef bint is_torch
    cdef object exchange
    cdef const DLPackExchangeAPI* api  # lives as long as the process
    cdef PyCFunction is_neg  # of its arrays: torch's own, without the way through Python

    cdef bint negated(self, leaf) except -1


cdef ArrayLibrary library_of(array_type)
cdef ArrayLibrary library_of_first(tuple leaves)
cdef object import_or_leave(leaf, bint always)
cdef int await_array(array, DLDevice device) except -1
cdef int let_library_wait(ArrayLibrary library, DLDevice device) except -1
cdef int raise_pending() except -1
