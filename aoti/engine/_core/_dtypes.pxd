cimport numpy as cnp

from aoti.engine.cxx.dtype cimport DType


cdef DType dtype_of_array(cnp.ndarray array) except? 1
cdef DType dtype_named(str name) except? 1
cdef bint is_known(DType dtype) except -1
cdef str dtype_name(DType dtype)
cdef cnp.dtype numpy_type(DType dtype)
