"""aoti/core/dlpack.h: tensors of other libraries, and ours as others see them."""

from libc.stdint cimport uint64_t
from libcpp cimport bool as cbool

from aoti.engine.cxx.array_view cimport ArrayView
from aoti.engine.cxx.check cimport MismatchKind
from aoti.engine.cxx.dlpack cimport DLTensor
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Tensor


cdef extern from "aoti/core/dlpack.h" namespace "aoti" nogil:
    MismatchKind describe_foreign "aoti::describe"(
        const DLTensor& tensor, cbool writable, ArrayView& array) noexcept
    const char* fault_of(const DLTensor& tensor) noexcept
    Status from_dlpack[Managed](Managed* managed, Tensor& tensor) noexcept
    void discard[Managed](Managed* managed) noexcept
    Status to_dlpack[Managed](const Tensor& tensor, uint64_t flags, Managed*& out) noexcept
