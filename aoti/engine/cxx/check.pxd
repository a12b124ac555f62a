"""aoti/core/check.h: what an input must be, and whether an array is that."""

from libc.stdint cimport int64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from aoti.engine.cxx.array_view cimport ArrayView
from aoti.engine.cxx.dlpack cimport DLDevice
from aoti.engine.cxx.dtype cimport DType


cdef extern from "aoti/core/check.h" namespace "aoti" nogil:
    const int64_t kUnbound

    cdef cppclass Size:
        Size()
        int64_t symbol
        int64_t scale
        int64_t offset

    cdef cppclass Range:
        Range()
        int64_t least
        int64_t most

    cdef cppclass InputSpec:
        InputSpec()
        DType dtype
        int rank
        cbool writable
        vector[Size] sizes
        vector[int64_t] order
        vector[int64_t] strides
        DLDevice device
        cbool bounded
        Size low
        Size high

    cdef enum class MismatchKind(int):
        kNone
        kUnreadable
        kDevice
        kDType
        kRank
        kSize
        kConflict
        kRange
        kNull
        kAlignment
        kByteOrder
        kStrides
        kReadOnly

    cdef cppclass Mismatch:
        Mismatch()
        MismatchKind kind
        int dim
        int64_t expected
        int64_t got

    int64_t evaluate(const Size& size, const int64_t* symbols) noexcept
    cbool placed(const InputSpec& spec, const ArrayView& array) noexcept
    Mismatch check(
        const InputSpec& spec,
        const ArrayView& array,
        const Range* ranges,
        int64_t* symbols,
        int64_t* strides) noexcept
