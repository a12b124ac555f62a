# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""DLPack capsules: those of other libraries become C++ tensors, and C++ tensors become capsules."""

from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.pycapsule cimport (
    PyCapsule_GetPointer,
    PyCapsule_IsValid,
    PyCapsule_New,
    PyCapsule_SetName,
)
from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

from aoti.engine._core._device cimport resolve_device
from aoti.engine._core._dtypes cimport is_known
from aoti.engine.cxx.core_dlpack cimport discard, fault_of, from_dlpack, to_dlpack
from aoti.engine.cxx.dlpack cimport (
    DLPACK_FLAG_BITMASK_READ_ONLY,
    DLPACK_MAJOR_VERSION,
    DLDevice,
    DLManagedTensor,
    DLManagedTensorVersioned,
    DLPackExchangeAPI,
    DLTensor,
)
from aoti.engine.cxx.dtype cimport dtype_of
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Tensor

# Names of capsules, which stay with them: C's own strings.
cdef const char* _VERSIONED = "dltensor_versioned"
cdef const char* _VERSIONED_USED = "used_dltensor_versioned"
cdef const char* _LEGACY = "dltensor"
cdef const char* _LEGACY_USED = "used_dltensor"


EXCHANGE_API = "dlpack_exchange_api"
cdef DLPackExchangeAPI _exchange_api


cdef DLPackExchangeAPI* exchange_api() noexcept:
    """The C functions of `Tensor`, which _exchange fills in."""
    return &_exchange_api


cdef int _check_importable(const DLTensor& view) except -1:
    cdef DLDevice device
    if not resolve_device(view.device.device_type, view.device.device_id, &device):
        raise BufferError("it lies on a device that aoti cannot use here")
    if not is_known(dtype_of(view.dtype)):
        raise BufferError("torch has no such dtype")
    return 0


cdef int _check_version(const DLManagedTensorVersioned* managed) except -1:
    if managed.version.major != DLPACK_MAJOR_VERSION:
        raise BufferError(f"version {managed.version.major} of DLPack is not supported")
    return 0


cdef DLManagedTensor* _legacy_in(capsule) except? NULL:
    """What a capsule of before version 1 holds; NULL if it is one of version 1."""
    if PyCapsule_IsValid(capsule, _VERSIONED):
        return NULL
    if not PyCapsule_IsValid(capsule, _LEGACY):
        raise BufferError(f"not a DLPack capsule, or one that was used before: {capsule!r}")
    return <DLManagedTensor*>PyCapsule_GetPointer(capsule, _LEGACY)


def check_capsule(capsule: object) -> None:
    """Check a capsule for whoever believes it unchecked, as numpy does.

    Raises
    ------
    BufferError
        It is not a DLPack capsule, or what it says of its tensor cannot be true.
    """
    cdef DLManagedTensor* legacy = _legacy_in(capsule)
    cdef DLManagedTensorVersioned* managed
    cdef const DLTensor* view
    cdef const char* fault
    if legacy != NULL:
        view = &legacy.dl_tensor
    else:
        managed = <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, _VERSIONED)
        _check_version(managed)
        view = &managed.dl_tensor
    _check_importable(view[0])
    fault = fault_of(view[0])
    if fault != NULL:
        raise BufferError(fault.decode())


cdef bint take_capsule(capsule, Tensor& tensor) except -1:
    """Consume a capsule; it stays as it was if it cannot be used. Returns whether it is read-only.
    """
    cdef DLManagedTensor* legacy = _legacy_in(capsule)
    cdef Status status
    cdef bint readonly
    if legacy == NULL:
        readonly = take_versioned(
            <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, _VERSIONED), tensor)
        PyCapsule_SetName(capsule, _VERSIONED_USED)
        return readonly
    _check_importable(legacy.dl_tensor)
    status = from_dlpack(legacy, tensor)
    if not status.ok():
        raise BufferError(status.message.decode())
    PyCapsule_SetName(capsule, _LEGACY_USED)
    return False


cdef bint take_versioned(DLManagedTensorVersioned* managed, Tensor& tensor) except -1:
    """Make a tensor own `managed`, which after an error is still the caller's. Returns whether it
    is read-only.
    """
    cdef Status status
    _check_version(managed)
    _check_importable(managed.dl_tensor)
    status = from_dlpack(managed, tensor)
    if not status.ok():
        raise BufferError(status.message.decode())
    return (managed.flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0


cdef void _drop(object capsule) noexcept:
    """The destructor of a capsule: whoever used it renamed it, and calls the deleter."""
    cdef PyObject* kind
    cdef PyObject* value
    cdef PyObject* trace
    PyErr_Fetch(&kind, &value, &trace)  # the deleter may be code in Python
    if PyCapsule_IsValid(capsule, _VERSIONED):
        discard(<DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, _VERSIONED))
    elif PyCapsule_IsValid(capsule, _LEGACY):
        discard(<DLManagedTensor*>PyCapsule_GetPointer(capsule, _LEGACY))
    PyErr_Restore(kind, value, trace)


cdef object versioned_capsule(const Tensor& tensor, uint64_t flags):
    cdef DLManagedTensorVersioned* managed = NULL
    cdef Status status = to_dlpack(tensor, flags, managed)
    if not status.ok():
        raise BufferError(status.message.decode())
    try:
        return PyCapsule_New(managed, _VERSIONED, _drop)
    except BaseException:
        discard(managed)
        raise


cdef object legacy_capsule(const Tensor& tensor):
    cdef DLManagedTensor* managed = NULL
    cdef Status status = to_dlpack(tensor, 0, managed)
    if not status.ok():
        raise BufferError(status.message.decode())
    try:
        return PyCapsule_New(managed, _LEGACY, _drop)
    except BaseException:
        discard(managed)
        raise
