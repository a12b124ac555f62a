from libc.stdint cimport uint64_t

from aoti.engine.cxx.dlpack cimport DLManagedTensorVersioned, DLPackExchangeAPI
from aoti.engine.cxx.tensor cimport Tensor

cdef const char* EXCHANGE_API  # the name of its capsule


cdef DLPackExchangeAPI* exchange_api() noexcept
cdef bint take_capsule(capsule, Tensor& tensor) except -1
cdef bint take_versioned(DLManagedTensorVersioned* managed, Tensor& tensor) except -1
cdef object versioned_capsule(const Tensor& tensor, uint64_t flags)
cdef object legacy_capsule(const Tensor& tensor)
