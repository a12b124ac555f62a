"""aoti/engine/weight_set.h: one version of a model's weights, in a container of the engine."""

from libc.stdint cimport uint64_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

from aoti.engine.cxx.dtype cimport DType
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Tensor


cdef extern from "aoti/engine/weight_set.h" namespace "aoti" nogil:
    cdef cppclass ConstantInfo:
        string name
        string fqn
        DType dtype

    cdef cppclass WeightSet:
        uint64_t number
        Status describe(
            vector[string]& call_spec, vector[string]& fqns, vector[ConstantInfo]& constants
        ) noexcept
        Status set(const vector[string]& names, vector[Tensor] tensors, cbool fold) noexcept
        Status list(vector[string]& fqns, vector[Tensor]& tensors) noexcept
