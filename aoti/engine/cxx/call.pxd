"""aoti/engine/call.h: what one run takes and gives."""

from libc.stdint cimport int64_t

from aoti.engine.cxx.array_view cimport ArrayView
from aoti.engine.cxx.dlpack cimport DLTensor
from aoti.engine.cxx.engine cimport AotiEngine, AotiTensor
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Release, Tensor


cdef extern from "aoti/engine/call.h" namespace "aoti" nogil:
    cdef cppclass InputList:
        InputList()
        void reserve(size_t count) except +
        Status add(const ArrayView& array, const int64_t* strides) noexcept
        void set_owner(void* owner, Release release) noexcept
        const DLTensor& view(size_t index) noexcept
        size_t size() noexcept

    cdef cppclass OutputList:
        OutputList()
        size_t size() noexcept
        const AotiEngine* engine() noexcept
        AotiTensor& operator[](size_t index) noexcept
        void* release(size_t index) noexcept
        Status take(size_t index, Tensor& tensor) noexcept
