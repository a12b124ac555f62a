"""aoti/engine/registry.h: the engines that this process has loaded."""

from libc.stdint cimport int32_t

from aoti.engine.cxx.engine cimport AotiEngine
from aoti.engine.cxx.status cimport Status


cdef extern from "aoti/engine/registry.h" namespace "aoti" nogil:
    Status add_engine(const AotiEngine* engine) noexcept
    const AotiEngine* device_engine() noexcept
    Status engine_failure(const AotiEngine& engine, int32_t code) noexcept
