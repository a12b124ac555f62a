from libcpp.memory cimport shared_ptr

from aoti.engine.cxx.memory cimport Memory as CxxMemory
from aoti.engine.cxx.weight_set cimport WeightSet as CxxWeightSet


cdef class WeightSet:
    cdef shared_ptr[CxxWeightSet] held
    cdef object program  # whose engine it needs


cdef class Memory:
    cdef shared_ptr[CxxMemory] held
