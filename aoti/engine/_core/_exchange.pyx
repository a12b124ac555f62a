# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The C functions of `Tensor`, for libraries that exchange tensors by C functions.

DLPack, section "C Exchange API" (https://dmlc.github.io/dlpack).
"""

from cpython.ref cimport Py_INCREF, PyObject
from cython.operator cimport dereference as deref
from libc.stdint cimport int32_t, int64_t

from aoti.engine._core._capsules cimport exchange_api, take_versioned
from aoti.engine._core._device cimport current_stream, resolve_device
from aoti.engine._core._tensor cimport Tensor, wrap
from aoti.engine.cxx cimport devices
from aoti.engine.cxx cimport tensor as cxx
from aoti.engine.cxx.core_dlpack cimport to_dlpack
from aoti.engine.cxx.device cimport is_cpu
from aoti.engine.cxx.dlpack cimport (
    DLPACK_FLAG_BITMASK_READ_ONLY,
    DLPACK_MAJOR_VERSION,
    DLPACK_MINOR_VERSION,
    DLDevice,
    DLDeviceType,
    DLManagedTensorVersioned,
    DLPackCurrentWorkStream,
    DLPackDLTensorFromPyObjectNoSync,
    DLPackExchangeAPI,
    DLPackManagedTensorFromPyObjectNoSync,
    DLPackManagedTensorToPyObjectNoSync,
    DLTensor,
)
from aoti.engine.cxx.status cimport Status

cdef int _allocate(
    DLTensor* prototype,
    DLManagedTensorVersioned** out,
    void* context,
    void (*set_error)(void*, const char*, const char*) noexcept nogil,
) noexcept nogil:
    cdef cxx.Tensor tensor
    cdef Status status = devices.allocate_like_on_device(deref(prototype), tensor)
    if status.ok():
        status = to_dlpack(tensor, 0, out[0])
    if status.ok():
        return 0
    set_error(context, b"RuntimeError", status.message.c_str())
    return -1


cdef int _share(void* value, DLManagedTensorVersioned** out) except -1:
    cdef Tensor tensor = <Tensor?><object><PyObject*>value
    tensor.check()
    tensor.meet()
    cdef Status status = to_dlpack(
        tensor.tensor, DLPACK_FLAG_BITMASK_READ_ONLY if tensor.readonly else 0, out[0])
    if not status.ok():
        raise BufferError(status.message.decode())
    return 0


cdef int _take(DLManagedTensorVersioned* managed, void** out) except -1:
    cdef cxx.Tensor taken
    cdef bint readonly = take_versioned(managed, taken)
    cdef Tensor tensor = wrap(taken, readonly)
    Py_INCREF(tensor)  # the caller's reference
    out[0] = <void*>tensor
    return 0


cdef int _describe(void* value, DLTensor* out) except -1:
    cdef Tensor tensor = <Tensor?><object><PyObject*>value
    tensor.check()
    if tensor.readonly:
        raise BufferError("the tensor is read-only, which a DLTensor cannot say")
    tensor.meet()
    out[0] = tensor.tensor.view()
    return 0


cdef int _stream(DLDeviceType device_type, int32_t device_id, void** stream) except -1:
    cdef DLDevice device
    cdef int64_t number = 0
    stream[0] = NULL  # the CPU has none
    if not resolve_device(device_type, device_id, &device):
        raise BufferError(f"no device of DLPack type {<int>device_type} can be used here")
    if not is_cpu(device):
        stream[0] = <void*>current_stream(device, &number)
    return 0


cdef DLPackExchangeAPI* _api = exchange_api()
_api.header.version.major = DLPACK_MAJOR_VERSION
_api.header.version.minor = DLPACK_MINOR_VERSION
_api.header.prev_api = NULL
_api.managed_tensor_allocator = _allocate
_api.managed_tensor_from_py_object_no_sync = <DLPackManagedTensorFromPyObjectNoSync>_share
_api.managed_tensor_to_py_object_no_sync = <DLPackManagedTensorToPyObjectNoSync>_take
_api.dltensor_from_py_object_no_sync = <DLPackDLTensorFromPyObjectNoSync>_describe
_api.current_work_stream = <DLPackCurrentWorkStream>_stream
