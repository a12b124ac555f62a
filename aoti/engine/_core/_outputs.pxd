from libcpp.vector cimport vector

from aoti.engine._core._library cimport ArrayLibrary
from aoti.engine.cxx.call cimport OutputList
from aoti.engine.cxx.dlpack cimport DLDevice
from aoti.engine.cxx.program cimport Run
from aoti.engine.cxx.tensor cimport Tensor as CxxTensor


cdef object output(OutputList& made, size_t i, tuple leaves, ArrayLibrary library)
cdef list outputs(OutputList& made, tuple leaves, ArrayLibrary library)
cdef int read_targets(out, vector[CxxTensor]& targets, DLDevice device) except -1
cdef int refuse_targets(Run& run, out) except -1
