"""aoti/core/status.h: the result of a C++ operation."""

from libcpp cimport bool as cbool
from libcpp.string cimport string


cdef extern from "aoti/core/status.h" namespace "aoti" nogil:
    cdef enum class StatusCode(int):
        kOk
        kClosed
        kBusy
        kRunLost
        kUnset
        kThreadsLost
        kNoMemory
        kExecution

    cdef cppclass Status:
        StatusCode code
        string message
        string detail
        cbool ok() noexcept
