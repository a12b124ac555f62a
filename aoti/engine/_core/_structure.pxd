cimport cython

cdef enum NodeKind:
    LEAF
    DICT
    LIST
    TUPLE
    NAMEDTUPLE
    OTHER


@cython.final
cdef class Node:
    cdef int kind
    cdef tuple keys
    cdef object make  # None for a plain dict
    cdef tuple children
    cdef Py_ssize_t count
    cdef Py_ssize_t leaves  # in it, this one included

    cdef bint take(self, value, list leaves) except -1
    cdef object build(self, list leaves, Py_ssize_t* next)


@cython.final
cdef class Structure:
    cdef Node args
    cdef Node kwargs
    cdef Node result
    cdef bint arrays_only
    cdef bint flat  # positional leaves only

    cdef tuple take(self, tuple args, dict kwargs)
    cdef int check_count(self, size_t count) except -1
    cdef object build(self, list leaves)
