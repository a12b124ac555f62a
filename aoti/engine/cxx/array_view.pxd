"""aoti/core/array_view.h: an array as its owner describes it."""

from libc.stdint cimport int64_t
from libcpp cimport bool as cbool

from aoti.engine.cxx.dlpack cimport DLDevice
from aoti.engine.cxx.dtype cimport DType


cdef extern from "aoti/core/array_view.h" namespace "aoti" nogil:
    enum:
        kMaxRank
        kMaxSymbols

    cdef cppclass ArrayView:
        void* data
        DType dtype
        int rank
        int64_t itemsize
        int64_t unit
        const int64_t* sizes
        const int64_t* strides
        cbool writable
        DLDevice device
        cbool anywhere

    void own_strides(const ArrayView& array, int64_t* strides) noexcept
    cbool contains(const ArrayView& array, const void* pointer) noexcept
