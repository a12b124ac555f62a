# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Engines, devices and streams. An engine numbers streams, other libraries use handles."""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libcpp.string cimport string

from aoti.engine._core._status cimport first_line, raise_status
from aoti.engine.cxx cimport devices as cxx
from aoti.engine.cxx.device cimport is_cpu, is_host, kCpu
from aoti.engine.cxx.dlpack cimport DLDevice, DLDeviceType
from aoti.engine.cxx.engine cimport AotiEngine
from aoti.engine.cxx.registry cimport add_engine as cxx_add_engine
from aoti.engine.cxx.status cimport Status

from aoti.errors import DeviceError, ExecutionError, LibtorchError

cdef const char* _ENGINE = "aoti_engine"


def add_engine(capsule: object) -> None:
    """Make an engine known: a capsule named ``aoti_engine`` over its table of functions."""
    cdef Status status = cxx_add_engine(engine_of(capsule))
    if not status.ok():
        raise LibtorchError(first_line(status))


cdef const AotiEngine* engine_of(capsule) except NULL:
    return <const AotiEngine*>PyCapsule_GetPointer(capsule, _ENGINE)


cdef str device_name(DLDevice device):
    """As PyTorch names it, which calls the GPUs of ROCm cuda, too."""
    if is_cpu(device):
        return "cpu"
    if device.device_type in (DLDeviceType.kDLCUDA, DLDeviceType.kDLROCM):
        return f"cuda:{device.device_id}"
    return f"DLPack device type {<int>device.device_type}:{device.device_id}"


cdef DLDevice device_named(str name) except *:
    """A device of this machine. Without a number it is the current one."""
    cdef DLDevice device
    cdef string name_ = name.encode()
    cdef Status status = cxx.find_device(name_, device)
    if not status.ok():
        raise DeviceError(f"{name} cannot be used: {first_line(status)}")
    return device


cdef bint resolve_device(int device_type, int number, DLDevice* device) except -1:
    """Where memory lies, as DLPack numbers devices. False for a device that cannot be used."""
    if is_host(<DLDeviceType>device_type):
        device[0] = kCpu
        return True
    device.device_type, device.device_id = <DLDeviceType>device_type, number
    if cxx.usable(device[0]):
        return True
    return False


def find_device(str device) -> str:
    """The full name of a device that the loaded engines can use: ``cuda:0``.

    Raises
    ------
    DeviceError
        There is none, with the engine's reason.
    """
    return device_name(device_named(device))


def check_device(str device, int64_t count) -> float:
    """Allocate `count` float32 ones on a device and add them up there, without the GIL."""
    cdef string device_ = device.encode()
    cdef double sum = 0
    cdef Status status
    with nogil:
        status = cxx.check_device(device_, count, sum)
    if not status.ok():
        raise_status(status)
    return sum


def has_operator(engine: object, str name, str overload) -> bool:
    """Whether an operator such as ``aten::add`` is registered with an engine."""
    cdef const AotiEngine* engine_ = engine_of(engine)
    cdef bytes name_ = name.encode(), overload_ = overload.encode()
    cdef const char* name__ = name_
    cdef const char* overload__ = overload_
    cdef int32_t found = 0
    if engine_.has_operator != NULL:
        with nogil:
            found = engine_.has_operator(name__, overload__)
    if found < 0:
        raise ExecutionError(f"the engine cannot look up the operator {name}.{overload}")
    return found == 1


cdef uintptr_t current_stream(DLDevice device, int64_t* number) except? 1:
    """The current stream of this thread: its handle, and its number."""
    cdef uintptr_t handle = 0
    cdef Status status = cxx.current_stream(device, number[0], handle)
    if not status.ok():
        raise_status(status)
    return handle


cdef int64_t stream_number(DLDevice device, handle) except? -1:
    """The number of a stream with a handle of another library."""
    cdef int64_t number = 0
    cdef uintptr_t known = handle
    cdef Status status = cxx.find_stream(device, known, number)
    if not status.ok():
        raise DeviceError(
            f"stream {handle} of {device_name(device)} cannot be used: {first_line(status)}")
    return number


cdef int wait_stream(DLDevice device, int64_t stream, int64_t ahead) except -1:
    """Let a stream wait for what another one was given so far."""
    cdef Status status
    if stream != ahead:
        status = cxx.wait_stream(device, stream, ahead)
        if not status.ok():
            raise_status(status)
    return 0


cdef object dl_stream(DLDevice device):
    """The current stream as `__dlpack__` takes it: CUDA's default stream is 1, ROCm's 0."""
    cdef int64_t number = 0
    cdef uintptr_t handle = current_stream(device, &number)
    return 1 if handle == 0 and device.device_type == DLDeviceType.kDLCUDA else handle
