"""aoti/engine/engine.h: the seam between the array core and an engine."""

from libc.stdint cimport int32_t, uint32_t

from aoti.engine.cxx.dlpack cimport DLTensor


cdef extern from "aoti/engine/engine.h" nogil:
    ctypedef struct AotiBinding:
        pass

    ctypedef struct AotiDevices:
        pass

    ctypedef struct AotiTensor:
        void* handle
        DLTensor view
        int32_t borrowed

    ctypedef struct AotiEngine:
        uint32_t struct_size
        uint32_t version
        const char* name
        const char* details
        void (*release_tensor)(void* handle) noexcept nogil
        void (*unbind)(AotiBinding* binding) noexcept nogil
        int32_t (*has_operator)(const char* name, const char* overload) noexcept nogil
        int32_t (*can_make_torch_tensors)() noexcept nogil
        void* (*make_torch_tensor)(void* handle) noexcept  # wants the GIL
        const AotiDevices* devices
