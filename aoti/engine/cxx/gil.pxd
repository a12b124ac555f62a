"""aoti/engine/gil.h: when runs give up the GIL, and how threads hand it to each other."""

from libc.stdint cimport int64_t


cdef extern from "aoti/engine/gil.h" namespace "aoti" nogil:
    int64_t taken "aoti::GilHandover::taken"() noexcept


cdef extern from "aoti/engine/gil.h" namespace "aoti":
    void look_up_python_threads "aoti::PythonThreads::look_up"() noexcept

    cdef cppclass GilPolicy:
        bint keeps_gil() noexcept
        int64_t begin() noexcept
        void end(int64_t begun, int64_t now) noexcept
