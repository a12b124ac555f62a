"""aoti/core/tensor.h: a DLTensor and what keeps its memory alive."""

from libc.stdint cimport int64_t
from libcpp cimport bool as cbool

from aoti.engine.cxx.array_view cimport ArrayView
from aoti.engine.cxx.dlpack cimport DLDevice, DLTensor
from aoti.engine.cxx.dtype cimport DType

ctypedef void (*Release)(void* owner) noexcept nogil


cdef extern from "aoti/core/tensor.h" namespace "aoti" nogil:
    cdef cppclass Tensor:
        Tensor()

        @staticmethod
        Tensor over(const DLTensor& view, void* owner, Release release) except +

        cbool defined() noexcept
        void reset() noexcept
        const DLTensor& view() noexcept
        void* data() noexcept
        DType dtype() noexcept
        int rank() noexcept
        const int64_t* sizes() noexcept
        const int64_t* strides() noexcept
        DLDevice device() noexcept
        cbool is_cpu() noexcept
        int64_t itemsize() noexcept
        int64_t nbytes() noexcept

    void describe(const Tensor& tensor, cbool writable, ArrayView& array) noexcept
    cbool bounds_overlap(const Tensor& one, const Tensor& other) noexcept
    int64_t count_elements(const DLTensor& view) noexcept
