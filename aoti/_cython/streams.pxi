# Devices and streams. c10 knows a stream by a number, other libraries by the backend's handle.

cdef str _place_name(_cxx.Place place):
    return "cpu" if place.is_cpu() else f"cuda:{place.index()}"


cdef str _first_line(const Failure& failure):
    return failure.message.decode("utf-8", "replace").partition("\n")[0]


cdef _cxx.Place _place_named(str device) except *:
    """A device of this machine, by its name. Without a number it is the current one."""
    cdef _cxx.Place place
    cdef string name = device.encode()
    cdef Failure failure = _cxx.find_device(name, place)
    if failure.fault != Fault.kNone:
        raise DeviceError(f"{device} cannot be used: {_first_line(failure)}")
    return place


def find_device(str device) -> str:
    """The name of a device that libtorch can use here, with its number: ``cuda:0``.

    Raises
    ------
    DeviceError
        There is none, with libtorch's reason.
    """
    return _place_name(_place_named(device))


cdef uintptr_t _current_stream(_cxx.Place place, int64_t* number) except? 1:
    """The current stream of this thread: its handle, and its number."""
    cdef uintptr_t handle = 0
    cdef Failure failure = _cxx.current_stream(place, number[0], handle)
    if failure.fault != Fault.kNone:
        _raise(failure)
    return handle


cdef int64_t _stream_number(_cxx.Place place, handle) except? -1:
    """The number of a stream that a library told the handle of."""
    cdef int64_t number = 0
    cdef uintptr_t known = handle
    cdef Failure failure = _cxx.find_stream(place, known, number)
    if failure.fault != Fault.kNone:
        raise DeviceError(
            f"stream {handle} of {_place_name(place)} cannot be used: {_first_line(failure)}")
    return number


cdef object _dl_stream(_cxx.Place place):
    """The current stream as `__dlpack__` takes it: CUDA's default stream is 1 there, ROCm's 0."""
    cdef int64_t number = 0
    cdef uintptr_t handle = _current_stream(place, &number)
    return 1 if handle == 0 and _cxx.kDLGpu == _cxx.kDLCUDA else handle


cdef int _await(array, _cxx.Place place) except -1:
    """Let the current stream wait for what computes an array that lies on a device.

    torch computes it on this same one. Of a library without C functions, `__dlpack__` saw to it.
    """
    cdef Kind kind
    cdef int64_t number = 0
    if type(array) is Tensor:
        return (<Tensor>array).meet()
    kind = _kind(type(array))
    if kind is not None and kind.api != NULL and not kind.of_torch:
        _current_stream(place, &number)
        _follow(place, number, _library_stream(kind, place))
    return 0


cdef int _let_wait(Kind kind, _cxx.Place place) except -1:
    """Let the stream of an array's library wait for what the current one was given."""
    cdef int64_t number = 0
    if not kind.of_torch:
        _current_stream(place, &number)
        _follow(place, _library_stream(kind, place), number)
    return 0


cdef int64_t _library_stream(Kind kind, _cxx.Place place) except? -1:
    cdef void* handle = NULL
    if kind.api.current_work_stream == NULL:
        return 0
    if kind.api.current_work_stream(
            <_cxx.DLDeviceType>_cxx.kDLGpu, place.index(), &handle) != 0:
        _raise_pending()
    return _stream_number(place, <uintptr_t>handle)


cdef int _follow(_cxx.Place place, int64_t stream, int64_t ahead) except -1:
    cdef Failure failure = _cxx.follow(place, stream, ahead)
    if failure.fault != Fault.kNone:
        _raise(failure)
    return 0
