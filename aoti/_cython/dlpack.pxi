cdef Tensor _import(value, Kind kind):
    """A tensor over another library's memory: by its C functions, else by a capsule."""
    cdef DLManagedTensorVersioned* managed = NULL
    cdef Tensor tensor
    cdef _cxx.Place place
    if kind.api == NULL:
        device_type, number = value.__dlpack_device__()
        if not _cxx.place_of_dl(device_type, number, place):
            raise BufferError("it does not lie on the CPU")
        # Its library lets our stream wait for its own.
        options = {} if place.is_cpu() else {"stream": _dl_stream(place)}
        try:
            capsule = value.__dlpack__(**options, max_version=(
                _cxx.DLPACK_MAJOR_VERSION, _cxx.DLPACK_MINOR_VERSION))
        except TypeError:  # of before version 1
            capsule = value.__dlpack__(**options)
        tensor = _from_capsule(capsule)
        tensor.readonly |= kind.immutable
        return tensor
    resolved = value.resolve_conj().resolve_neg() if kind.lazy else value
    if kind.api.managed_tensor_from_py_object_no_sync(<void*>resolved, &managed) != 0:
        _raise_pending()
    try:
        tensor = _from_versioned(managed)
    except BaseException:
        _cxx.discard(managed)
        raise
    if not tensor.tensor.is_cpu():
        _await(value, _cxx.place_of(tensor.tensor))
    if resolved is not value or kind.immutable:
        tensor.readonly = True  # a copy: nobody would see what is written into it
    return tensor


cdef Tensor _from_capsule(capsule):
    """Consume a capsule; it stays as it was if it cannot be used."""
    cdef Tensor tensor
    cdef Failure failure
    if PyCapsule_IsValid(capsule, _VERSIONED):
        tensor = _from_versioned(
            <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, _VERSIONED))
        PyCapsule_SetName(capsule, _VERSIONED_USED)
        return tensor
    if not PyCapsule_IsValid(capsule, _LEGACY):
        raise BufferError(f"no DLPack capsule, or one that was used before: {capsule!r}")
    tensor = Tensor.__new__(Tensor)
    failure = _cxx.adopt(
        <DLManagedTensor*>PyCapsule_GetPointer(capsule, _LEGACY), tensor.tensor)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    PyCapsule_SetName(capsule, _LEGACY_USED)
    tensor.note_stream()
    return tensor


cdef Tensor _from_versioned(DLManagedTensorVersioned* managed):
    """A tensor that owns `managed`, which on an error is still the caller's."""
    cdef Tensor tensor = Tensor.__new__(Tensor)
    cdef Failure failure
    if managed.version.major != _cxx.DLPACK_MAJOR_VERSION:
        raise BufferError(f"DLPack {managed.version.major} is not known")
    failure = _cxx.adopt(managed, tensor.tensor)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    tensor.readonly = (managed.flags & _cxx.DLPACK_FLAG_BITMASK_READ_ONLY) != 0
    tensor.note_stream()
    return tensor


cdef void _drop_versioned(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, _VERSIONED):
        _cxx.discard(
            <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, _VERSIONED))


cdef void _drop_legacy(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, _LEGACY):
        _cxx.discard(<DLManagedTensor*>PyCapsule_GetPointer(capsule, _LEGACY))


cdef object _versioned_capsule(_cxx.Tensor& tensor, uint64_t flags):
    cdef DLManagedTensorVersioned* managed = NULL
    cdef Failure failure = _cxx.produce(tensor, flags, managed)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    try:
        return PyCapsule_New(managed, _VERSIONED, _drop_versioned)
    except BaseException:
        _cxx.discard(managed)
        raise


cdef object _legacy_capsule(_cxx.Tensor& tensor):
    cdef DLManagedTensor* managed = NULL
    cdef Failure failure = _cxx.produce(tensor, 0, managed)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    try:
        return PyCapsule_New(managed, _LEGACY, _drop_legacy)
    except BaseException:
        _cxx.discard(managed)
        raise


# The C functions of our own tensors, for libraries that exchange tensors by those.

cdef int _api_allocate(
    DLTensor* prototype,
    DLManagedTensorVersioned** out,
    void* context,
    void (*set_error)(void*, const char*, const char*) noexcept nogil,
) noexcept nogil:
    cdef _cxx.Tensor tensor
    cdef Failure failure = _cxx.allocate_like(deref(prototype), tensor)
    if failure.fault == Fault.kNone:
        failure = _cxx.produce(tensor, 0, out[0])
    if failure.fault == Fault.kNone:
        return 0
    set_error(context, b"RuntimeError", failure.message.c_str())
    return -1


cdef int _api_share(void* value, DLManagedTensorVersioned** out) except -1:
    cdef Tensor tensor = <Tensor?><object><PyObject*>value
    cdef _cxx.View view
    tensor._view(view)
    tensor.meet()
    cdef Failure failure = _cxx.produce(
        tensor.tensor, _cxx.DLPACK_FLAG_BITMASK_READ_ONLY if tensor.readonly else 0, out[0])
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    return 0


cdef int _api_take(DLManagedTensorVersioned* managed, void** out) except -1:
    cdef Tensor tensor = _from_versioned(managed)
    Py_INCREF(tensor)  # the caller's reference
    out[0] = <void*>tensor
    return 0


cdef int _api_describe(void* value, DLTensor* out) except -1:
    cdef Tensor tensor = <Tensor?><object><PyObject*>value
    cdef _cxx.View view
    tensor._view(view)
    if tensor.readonly:
        raise BufferError("the tensor is read-only, which a DLTensor cannot say")
    tensor.meet()
    cdef Failure failure = _cxx.describe_to(tensor.tensor, deref(out))
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    return 0


cdef int _api_stream(
    _cxx.DLDeviceType device_type, int32_t device_id, void** stream
) except -1:
    cdef _cxx.Place place
    cdef int64_t number = 0
    stream[0] = NULL  # the CPU has none
    if not _cxx.place_of_dl(device_type, device_id, place):
        raise BufferError(f"no device of DLPack type {device_type} can be used here")
    if not place.is_cpu():
        stream[0] = <void*>_current_stream(place, &number)
    return 0


_api.header.version.major = _cxx.DLPACK_MAJOR_VERSION
_api.header.version.minor = _cxx.DLPACK_MINOR_VERSION
_api.header.prev_api = NULL
_api.managed_tensor_allocator = _api_allocate
_api.managed_tensor_from_py_object_no_sync = <_cxx.DLPackManagedTensorFromPyObjectNoSync>_api_share
_api.managed_tensor_to_py_object_no_sync = <_cxx.DLPackManagedTensorToPyObjectNoSync>_api_take
_api.dltensor_from_py_object_no_sync = <_cxx.DLPackDLTensorFromPyObjectNoSync>_api_describe
_api.current_work_stream = <_cxx.DLPackCurrentWorkStream>_api_stream
