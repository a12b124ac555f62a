"""aoti/libtorch/engine.h: the libtorch engine."""

from aoti.engine.cxx.engine cimport AotiEngine


cdef extern from "aoti/libtorch/engine.h" namespace "aoti::libtorch" nogil:
    const AotiEngine* libtorch_engine "aoti::libtorch::engine"() noexcept
