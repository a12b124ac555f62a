"""aoti/core/device.h: devices, as DLPack numbers them."""

from libcpp cimport bool as cbool

from aoti.engine.cxx.dlpack cimport DLDevice, DLDeviceType


cdef extern from "aoti/core/device.h" namespace "aoti" nogil:
    const DLDevice kCpu
    cbool is_cpu(DLDevice device) noexcept
    cbool same(DLDevice one, DLDevice other) noexcept
    cbool is_host(DLDeviceType type) noexcept
