"""aoti/engine/program.h: a loaded model."""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from aoti.engine.cxx.call cimport InputList, OutputList
from aoti.engine.cxx.check cimport InputSpec
from aoti.engine.cxx.dlpack cimport DLDevice
from aoti.engine.cxx.engine cimport AotiBinding, AotiEngine
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Tensor
from aoti.engine.cxx.weight_set cimport WeightSet


cdef extern from "aoti/engine/program.h" namespace "aoti" nogil:
    cdef cppclass Run:
        Run()
        InputList inputs
        const AotiBinding* binding
        OutputList outputs
        const vector[Tensor]* targets
        int64_t wrong
        uint64_t number

    cdef cppclass Program:
        Program(
            const AotiEngine& engine, string path, string model_name, size_t num_runners,
            DLDevice device, int32_t threads) except +
        Status open(
            uint64_t number, cbool container_per_runner, shared_ptr[WeightSet]& weights) noexcept
        cbool serve(shared_ptr[WeightSet] weights) noexcept
        Status run(Run& run) noexcept
        Status run_without_gil(Run& run) noexcept
        Status time_runs(const AotiBinding* binding, size_t repeats, double& seconds) noexcept
        Status bind(InputList& inputs, AotiBinding*& binding) noexcept
        void unbind(AotiBinding* binding) noexcept
        void close() noexcept

    int64_t find_out_of_range(
        const vector[InputSpec]& specs, const InputList& inputs, const int64_t* symbols) noexcept
