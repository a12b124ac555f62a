from libc.stdint cimport int64_t
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string

from aoti.engine._core._inputs cimport Inputs
from aoti.engine._core._library cimport ArrayLibrary
from aoti.engine._core._structure cimport Structure
from aoti.engine.cxx.call cimport InputList, OutputList
from aoti.engine.cxx.devices cimport StreamScope
from aoti.engine.cxx.dlpack cimport DLDevice
from aoti.engine.cxx.gil cimport GilPolicy
from aoti.engine.cxx.program cimport Program as CxxProgram
from aoti.engine.cxx.program cimport Run
from aoti.engine.cxx.status cimport Status


cdef class Program:
    cdef unique_ptr[CxxProgram] held
    cdef object engine
    cdef DLDevice device
    cdef bint cpu
    cdef bint streamed   # the model has a stream
    cdef int64_t stream  # this one
    cdef public str unset
    cdef Inputs wanted
    cdef Structure structure  # of calls, if it is known
    cdef object rebuild
    cdef bint follow  # outputs are of the inputs' library
    cdef ArrayLibrary library  # else of this one
    cdef bint may_keep_gil
    cdef GilPolicy gil_policy

    cdef int check_loaded(self) except -1
    cdef int enter(self, stream, StreamScope& scope) except -1
    cdef int enter_number(self, int64_t number, StreamScope& scope) except -1
    cdef ArrayLibrary library_for(self, tuple inputs)
    cdef object call(self, tuple inputs)
    cdef object call_with(self, tuple inputs, Run& run)
    cdef object result(self, OutputList& made, tuple leaves, ArrayLibrary library)
    cdef object rebuilt(self, list outputs)
    cdef list run_all(self, tuple inputs)
    cdef int measure(self, int64_t* now, int64_t* peak, bint start) except -1
    cdef tuple prepare_and_execute(self, tuple inputs, Run& run)
    cdef int execute(self, Run& run, out=*) except -1
    cdef bint goes_on(self, const Status& status) except -1
    cdef tuple prepare(self, tuple inputs, InputList& list_, bint release)
