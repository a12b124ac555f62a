from libc.stdint cimport int64_t, uintptr_t

from aoti.engine.cxx.dlpack cimport DLDevice
from aoti.engine.cxx.engine cimport AotiEngine


cdef const AotiEngine* engine_of(capsule) except NULL
cdef str device_name(DLDevice device)
cdef DLDevice device_named(str name) except *
cdef bint resolve_device(int device_type, int number, DLDevice* device) except -1
cdef uintptr_t current_stream(DLDevice device, int64_t* number) except? 1
cdef int64_t stream_number(DLDevice device, handle) except? -1
cdef int wait_stream(DLDevice device, int64_t stream, int64_t ahead) except -1
cdef object dl_stream(DLDevice device)
