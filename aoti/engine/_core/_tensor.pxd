cimport numpy as cnp
from libc.stdint cimport int64_t

from aoti.engine.cxx cimport tensor as cxx
from aoti.engine.cxx.dlpack cimport DLTensor

cdef int64_t LARGE  # bytes; the memory of such a tensor is freed without the GIL


cdef void release_object(void* owner) noexcept nogil
cdef cnp.ndarray array_over_view(const DLTensor& view, bint readonly)
cdef Tensor wrap(cxx.Tensor& tensor, bint readonly)


cdef class Tensor:
    cdef cxx.Tensor tensor
    cdef int64_t stream  # on a device: what computes it was given to this one
    cdef bint large
    cdef readonly bint readonly

    cdef int check(self) except -1
    cdef int note_stream(self) except -1
    cdef int meet(self) except -1
    cdef int hand_to(self, int64_t stream) except -1
