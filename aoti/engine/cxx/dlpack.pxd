"""dlpack/dlpack.h: DLPack's own structures."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "dlpack/dlpack.h" nogil:
    const int DLPACK_MAJOR_VERSION
    const int DLPACK_MINOR_VERSION
    const uint64_t DLPACK_FLAG_BITMASK_READ_ONLY
    const uint64_t DLPACK_FLAG_BITMASK_IS_COPIED

    ctypedef enum DLDeviceType:
        kDLCPU
        kDLCUDA
        kDLROCM

    ctypedef struct DLDevice:
        DLDeviceType device_type
        int32_t device_id

    ctypedef struct DLDataType:
        uint8_t code
        uint8_t bits
        uint16_t lanes

    ctypedef struct DLTensor:
        void* data
        DLDevice device
        int32_t ndim
        DLDataType dtype
        int64_t* shape
        int64_t* strides
        uint64_t byte_offset

    ctypedef struct DLPackVersion:
        uint32_t major
        uint32_t minor

    ctypedef struct DLManagedTensor:
        DLTensor dl_tensor

    ctypedef struct DLManagedTensorVersioned:
        DLPackVersion version
        uint64_t flags
        DLTensor dl_tensor

    ctypedef struct DLPackExchangeAPIHeader:
        DLPackVersion version
        DLPackExchangeAPIHeader* prev_api

    # All but the first want the GIL. They return -1 with a Python exception set where they fail;
    # declared without, because Cython's own handling of exceptions costs more than the calls.
    ctypedef int (*DLPackManagedTensorAllocator)(
        DLTensor*,
        DLManagedTensorVersioned**,
        void*,
        void (*)(void*, const char*, const char*) noexcept nogil) noexcept nogil
    ctypedef int (*DLPackManagedTensorFromPyObjectNoSync)(
        void*, DLManagedTensorVersioned**) noexcept
    ctypedef int (*DLPackManagedTensorToPyObjectNoSync)(
        DLManagedTensorVersioned*, void**) noexcept
    ctypedef int (*DLPackDLTensorFromPyObjectNoSync)(void*, DLTensor*) noexcept
    ctypedef int (*DLPackCurrentWorkStream)(DLDeviceType, int32_t, void**) noexcept

    ctypedef struct DLPackExchangeAPI:
        DLPackExchangeAPIHeader header
        DLPackManagedTensorAllocator managed_tensor_allocator
        DLPackManagedTensorFromPyObjectNoSync managed_tensor_from_py_object_no_sync
        DLPackManagedTensorToPyObjectNoSync managed_tensor_to_py_object_no_sync
        DLPackDLTensorFromPyObjectNoSync dltensor_from_py_object_no_sync
        DLPackCurrentWorkStream current_work_stream
