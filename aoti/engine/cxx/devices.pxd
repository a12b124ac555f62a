"""aoti/engine/devices.h: tensors on any device, and the order of the work on them."""

from libc.stdint cimport int64_t, uintptr_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

from aoti.engine.cxx.call cimport InputList
from aoti.engine.cxx.dlpack cimport DLDevice, DLTensor
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Tensor


cdef extern from "aoti/engine/devices.h" namespace "aoti" nogil:
    cbool usable(DLDevice device) noexcept
    Status find_device(const string& name, DLDevice& device) noexcept
    Status check_device(const string& name, int64_t count, double& sum) noexcept
    Status current_stream(DLDevice device, int64_t& number, uintptr_t& handle) noexcept
    Status find_stream(DLDevice device, uintptr_t handle, int64_t& number) noexcept
    Status wait_stream(DLDevice device, int64_t stream, int64_t ahead) noexcept
    Status record_stream(const Tensor& tensor, int64_t stream) noexcept
    Status device_memory(DLDevice device, int64_t& now, int64_t& peak) noexcept
    Status reset_peak(DLDevice device) noexcept

    cdef cppclass StreamScope:
        StreamScope()
        Status enter(DLDevice device, int64_t number) noexcept

    Status move_to(const Tensor& tensor, DLDevice device, Tensor& moved) noexcept
    Status upload(InputList& inputs, size_t index, DLDevice device) noexcept
    Status clone_on_device(const Tensor& tensor, Tensor& copy) noexcept
    Status copy_strided_on_device(
        const Tensor& tensor, const vector[int64_t]& strides, Tensor& copy) noexcept
    Status clone_preserving_on_device(const Tensor& tensor, Tensor& copy) noexcept
    Status allocate_like_on_device(const DLTensor& prototype, Tensor& tensor) noexcept
