# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The compiled core: owns libtorch's package loader and passes arrays to it and back.

Mechanism only. Names, defaults, checks of files and the wording of input errors are the business
of the modules above (aoti.model first of all). Each function converts, runs one block, mostly
without the GIL, and converts; C++ exceptions end in csrc/aoti and become Python ones in `_raise`
alone.

One extension module, whose text stands in `_cython/`, file by file in the order in which they
build on each other.
"""

from cpython.buffer cimport PyObject_GetBuffer
from cpython.dict cimport PyDict_GetItemWithError
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear
from cpython.pycapsule cimport (
    PyCapsule_GetPointer,
    PyCapsule_IsValid,
    PyCapsule_New,
    PyCapsule_SetDestructor,
    PyCapsule_SetName,
    PyCapsule_SetPointer,
)
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cython.operator cimport dereference as deref
from libc.stdint cimport int32_t, int64_t, uint64_t, uintptr_t
from libcpp cimport bool as cbool
from libcpp.memory cimport make_unique, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

cimport cython
cimport numpy as cnp
from aoti cimport _cxx
from aoti._cxx cimport (
    Borrowed,
    DLManagedTensor,
    DLManagedTensorVersioned,
    DLPackExchangeAPI,
    DLTensor,
    Failure,
    Fault,
    InputSpec,
    Mismatch,
    Range,
    ScalarType,
)

import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from aoti.arrays import libraries
from aoti.errors import (
    ConfigError,
    ConstantError,
    DeviceError,
    ExecutionError,
    IncompatiblePackageError,
    InputError,
    InputTypeError,
    ModelClosedError,
)
from aoti.signature.pytree import CONTAINERS

cnp.import_array()
_cxx.look_up_python_threads()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(
        type subtype,
        cnp.dtype descr,
        int rank,
        const cnp.npy_intp* dims,
        const cnp.npy_intp* strides,
        void* data,
        int flags,
        object array)

cdef extern from "Python.h":
    bint Py_IsInitialized() noexcept nogil

include "_cython/dtypes.pxi"
include "_cython/failures.pxi"
include "_cython/streams.pxi"
include "_cython/tensor.pxi"
include "_cython/kinds.pxi"
include "_cython/dlpack.pxi"
include "_cython/inputs.pxi"
include "_cython/structure.pxi"
include "_cython/outputs.pxi"
include "_cython/loader.pxi"
include "_cython/generation.pxi"
include "_cython/bound.pxi"


def add_ones(str device, int64_t count) -> float:
    """Allocate `count` float32 ones on a device and add them up there, without the GIL."""
    cdef string device_ = device.encode()
    cdef double sum = 0
    cdef Failure failure
    with nogil:
        failure = _cxx.add_ones(device_, count, sum)
    if failure.fault != Fault.kNone:
        _raise(failure)
    return sum


def has_operator(str name, str overload) -> bool:
    """Whether an operator such as ``aten::add`` is registered in this process."""
    cdef string name_ = name.encode()
    cdef string overload_ = overload.encode()
    cdef cbool found = False
    cdef Failure failure
    with nogil:
        failure = _cxx.has_operator(name_, overload_, found)
    if failure.fault != Fault.kNone:
        _raise(failure)
    return found


def build_info() -> str:
    """What this core was built from, as JSON. See `aoti.build_info`."""
    return _cxx.build_info().decode()
