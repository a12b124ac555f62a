"""aoti/core/memory.h: memory for weights."""

from libc.stdint cimport int64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr
from libcpp.vector cimport vector

from aoti.engine.cxx.dtype cimport DType
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Tensor


cdef extern from "aoti/core/memory.h" namespace "aoti" nogil:
    cdef cppclass Memory:
        @staticmethod
        Status map(
            int file, size_t offset, size_t bytes, cbool writable, shared_ptr[Memory]& memory
        ) noexcept

        @staticmethod
        Status read(
            int file, size_t offset, size_t bytes, shared_ptr[Memory]& memory) noexcept

        size_t bytes() noexcept
        void populate() noexcept

    Status tensor_in(
        const shared_ptr[Memory]& memory,
        size_t offset,
        DType dtype,
        const vector[int64_t]& sizes,
        const vector[int64_t]& strides,
        Tensor& tensor) noexcept
