"""aoti/core/dtype.h: a dtype as one number."""

from libc.stdint cimport int64_t, uint32_t

from aoti.engine.cxx.dlpack cimport DLDataType


cdef extern from "aoti/core/dtype.h" namespace "aoti" nogil:
    ctypedef uint32_t DType
    const DType kNoDType
    DType dtype_of(DLDataType type) noexcept
    DLDataType dl_type_of(DType dtype) noexcept
    int64_t itemsize_of(DType dtype) noexcept
    enum:
        kDTypeSlots
    int slot_of(DType dtype) noexcept
