from aoti.engine.cxx.status cimport Status


cdef int raise_status(const Status& status) except -1
cdef str first_line(const Status& status)
