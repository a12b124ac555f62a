cimport cython
from libc.stdint cimport int64_t
from libcpp.vector cimport vector

from aoti.engine.cxx.array_view cimport ArrayView
from aoti.engine.cxx.call cimport InputList
from aoti.engine.cxx.check cimport InputSpec, Mismatch, MismatchKind, Range
from aoti.engine.cxx.check cimport Size as CxxSize
from aoti.engine.cxx.dlpack cimport DLDevice


cdef MismatchKind look(leaf, ArrayView& out) except *


@cython.final
cdef class Inputs:
    cdef vector[InputSpec] specs
    cdef InputSpec unknown  # of inputs that nothing is known of
    cdef vector[Range] ranges
    cdef bint known
    cdef bint ranges_hold
    cdef bint validate
    cdef bint bounded  # some values are checked
    cdef DLDevice device
    cdef bint uploads  # what lies on the host may be taken to the device
    cdef object convert
    cdef object check_sizes
    cdef vector[int64_t] allowed  # the sizes that `check_sizes` saw last, and did not refuse

    cdef int lie_on(self, DLDevice device, hosts) except -1
    cdef CxxSize read_size(self, size) except *
    cdef int add_spec(self, dtype, sizes, order, strides, bint mutated, values) except -1
    cdef tuple borrow(self, tuple inputs, InputList& list_, int64_t* symbols, bint release)
    cdef int check_count(self, Py_ssize_t count) except -1
    cdef int check(
        self, Py_ssize_t i, leaf, ArrayView& view, int64_t* symbols, int64_t* strides,
        Mismatch& mismatch
    ) except -1
    cdef object converted(
        self, Py_ssize_t i, leaf, list values, ArrayView& view, int64_t* symbols,
        int64_t* strides, Mismatch& mismatch, Mismatch& why)
    cdef tuple prepare(self, tuple inputs, InputList& list_, bint release)
    cdef int upload(self, InputList& list_) except -1
    cdef int check_guards(self, const int64_t* symbols) except -1
    cdef int check_values(self, InputList& list_, int64_t* symbols, inputs) except -1
