"""Declarations of the C++ that the core is built on: libtorch, and csrc/aoti. Nothing else."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "ATen/Tensor.h" namespace "at" nogil:
    cdef cppclass Tensor:
        Tensor()
        void reset() noexcept
        cbool defined() noexcept
        cbool is_cpu() noexcept


cdef extern from "c10/core/ScalarType.h" namespace "c10" nogil:
    cdef enum class ScalarType(char):
        Bool
        Byte
        Char
        Short
        Int
        Long
        UInt16
        UInt32
        UInt64
        Half
        BFloat16
        Float
        Double
        ComplexHalf
        ComplexFloat
        ComplexDouble
        Float8_e4m3fn
        Float8_e4m3fnuz
        Float8_e5m2
        Float8_e5m2fnuz
        Float8_e8m0fnu


cdef extern from "aoti/errors.h" namespace "aoti" nogil:
    cdef enum class Fault(int):
        kNone
        kClosed
        kBusy
        kRunLost
        kUnset
        kThreadsLost
        kMemory
        kExecution

    cdef cppclass Failure:
        Fault fault
        string message
        string detail


cdef extern from "aoti/permits.h" namespace "aoti" nogil:
    cdef cppclass Permits:
        Permits(size_t count) except +
        cbool serve(Generation* served) noexcept
        void drop(Generation* served) noexcept
        void close() noexcept


cdef extern from "aoti/generation.h" namespace "aoti" nogil:
    cdef cppclass Generation:
        uint64_t number

    cdef cppclass ConstantFacts:
        string name
        string fqn
        int dtype

    # libtorch's package loader is constructed, run and destroyed in csrc/aoti only, which adds the
    # locks and catches what it throws.
    Failure open(
        Generation*& generation,
        const string& path,
        const string& model_name,
        cbool apart,
        size_t num_runners,
        const Place& place,
        uint64_t number) noexcept
    Failure describe_generation "aoti::describe"(
        const Generation& generation,
        vector[string]& call_spec,
        vector[string]& fqns,
        vector[ConstantFacts]& constants) noexcept
    Failure fill(
        Generation& generation,
        const vector[string]& names,
        vector[Tensor]& tensors,
        cbool fold) noexcept
    Failure weights(
        const Generation& generation, vector[string]& fqns, vector[Tensor]& tensors) noexcept


cdef extern from "aoti/memory.h" namespace "aoti" nogil:
    cdef cppclass Memory:
        size_t bytes() noexcept
        void populate() noexcept

        @staticmethod
        void release_memory "release"(void* memory) noexcept

    Failure map_memory(
        Memory*& memory, int file, size_t offset, size_t bytes, cbool writable) noexcept
    Failure read_memory(Memory*& memory, int file, size_t offset, size_t bytes) noexcept
    Failure tensor_in(
        Memory& memory,
        size_t offset,
        int dtype,
        const vector[int64_t]& sizes,
        const vector[int64_t]& strides,
        Tensor& tensor) noexcept


cdef extern from "aoti/handover.h" namespace "aoti" nogil:
    int64_t taken "aoti::Handover::taken"() noexcept


cdef extern from "aoti/solo.h" namespace "aoti":
    void look_up_python_threads "aoti::PythonThreads::look_up"() noexcept

    cdef cppclass Solo:
        bint keeps_gil() noexcept
        int64_t begin() noexcept
        void end(int64_t begun, int64_t now) noexcept


cdef extern from "aoti/loader.h" namespace "aoti" nogil:
    cdef struct Run:
        vector[Tensor] inputs
        vector[Tensor] outputs
        const vector[Tensor]* targets
        int64_t wrong
        uint64_t number

    Failure execute(Permits& permits, int threads, Run& run) noexcept
    Failure execute_without_gil(Permits& permits, int threads, Run& run) noexcept
    Failure time_runs(
        Permits& permits,
        int threads,
        const vector[Tensor]& inputs,
        size_t repeats,
        double& seconds) noexcept


cdef extern from "aoti/tensor.h" namespace "aoti" nogil:
    const int kMaxSymbols
    const int kAny

    cdef cppclass Place:
        Place()
        cbool operator==(const Place&) noexcept
        cbool is_cpu() noexcept
        int index() noexcept

    Place place_of(const Tensor& tensor) noexcept

    cdef cppclass Size:
        Size()
        int64_t symbol
        int64_t scale
        int64_t offset

    cdef cppclass Range:
        Range()
        int64_t least
        int64_t most

    cdef cppclass InputSpec:
        InputSpec()
        int dtype
        int rank
        cbool writable
        vector[Size] sizes
        vector[int64_t] order
        vector[int64_t] strides
        Place place
        cbool bounded
        Size low
        Size high

    cdef cppclass Borrowed:
        void* data
        int dtype
        int rank
        int64_t itemsize
        int64_t unit
        const int64_t* sizes
        const int64_t* strides
        cbool writable
        Place place
        cbool anywhere

    cdef enum class Mismatch(int):
        kNone
        kDevice
        kDtype
        kRank
        kSize
        kRange
        kNull
        kAligned
        kLayout
        kReadOnly

    cbool placed(const InputSpec& spec, const Borrowed& array) noexcept
    Mismatch check(
        const InputSpec& spec,
        const Borrowed& array,
        const Range* ranges,
        int64_t* symbols,
        int64_t* strides) noexcept
    void own_strides(const Borrowed& array, int64_t* strides) noexcept
    Failure borrow(
        const Borrowed& array, const int64_t* strides, vector[Tensor]& tensors) noexcept
    void* release(Tensor& tensor) noexcept
    Tensor reclaim(void* released) noexcept
    void describe(const Tensor& tensor, cbool writable, Borrowed& array) noexcept
    cbool contains(const Borrowed& array, const void* pointer) noexcept
    Failure finish(Tensor& tensor, void*& memory) noexcept
    Failure anchor(Tensor& tensor, void* context, void (*release)(void*) noexcept) noexcept
    Failure clone(Tensor& tensor) noexcept
    Failure clone_preserving(Tensor& tensor) noexcept
    int64_t itemsize(int dtype) noexcept
    Failure copy_strided(
        const Tensor& tensor, const vector[int64_t]& strides, Tensor& copy) noexcept
    int64_t bytes_of(const Tensor& tensor) noexcept

    cdef cppclass View:
        void* data
        int dtype
        int rank
        int64_t bytes
        int64_t* sizes
        int64_t* strides

    void view(const Tensor& tensor, View& view) noexcept


cdef extern from "ATen/dlpack.h":
    const int DLPACK_MAJOR_VERSION
    const int DLPACK_MINOR_VERSION
    const uint64_t DLPACK_FLAG_BITMASK_READ_ONLY
    const uint64_t DLPACK_FLAG_BITMASK_IS_COPIED
    const int kDLCPU
    const int kDLCUDA

    ctypedef int DLDeviceType

    ctypedef struct DLPackVersion:
        uint32_t major
        uint32_t minor

    ctypedef struct DLTensor:
        pass

    ctypedef struct DLManagedTensor:
        pass

    ctypedef struct DLManagedTensorVersioned:
        DLPackVersion version
        uint64_t flags

    ctypedef struct DLPackExchangeAPIHeader:
        DLPackVersion version
        DLPackExchangeAPIHeader* prev_api

    # All but the first want the GIL. They return -1 with a Python exception set where they fail;
    # declared without, because Cython's own handling of exceptions costs more than the calls.
    ctypedef int (*DLPackManagedTensorAllocator)(
        DLTensor*,
        DLManagedTensorVersioned**,
        void*,
        void (*)(void*, const char*, const char*) noexcept nogil) noexcept nogil
    ctypedef int (*DLPackManagedTensorFromPyObjectNoSync)(
        void*, DLManagedTensorVersioned**) noexcept
    ctypedef int (*DLPackManagedTensorToPyObjectNoSync)(
        DLManagedTensorVersioned*, void**) noexcept
    ctypedef int (*DLPackDLTensorFromPyObjectNoSync)(void*, DLTensor*) noexcept
    ctypedef int (*DLPackCurrentWorkStream)(DLDeviceType, int32_t, void**) noexcept

    ctypedef struct DLPackExchangeAPI:
        DLPackExchangeAPIHeader header
        DLPackManagedTensorAllocator managed_tensor_allocator
        DLPackManagedTensorFromPyObjectNoSync managed_tensor_from_py_object_no_sync
        DLPackManagedTensorToPyObjectNoSync managed_tensor_to_py_object_no_sync
        DLPackDLTensorFromPyObjectNoSync dltensor_from_py_object_no_sync
        DLPackCurrentWorkStream current_work_stream


cdef extern from "aoti/dlpack.h" namespace "aoti" nogil:
    const int kDLGpu
    cbool place_of_dl "aoti::place_of"(int device_type, int number, Place& place) noexcept
    Mismatch describe_foreign "aoti::describe"(
        const DLTensor& tensor, cbool writable, Borrowed& array) noexcept
    cbool has_unit_stride(const Borrowed& array) noexcept
    Failure adopt[Managed](Managed* managed, Tensor& tensor) noexcept
    void discard[Managed](Managed* managed) noexcept
    Failure describe_to(const Tensor& tensor, DLTensor& out) noexcept
    Failure produce[Managed](const Tensor& tensor, uint64_t flags, Managed*& out) noexcept
    Failure allocate_like(const DLTensor& prototype, Tensor& tensor) noexcept


cdef extern from "aoti/torch_python.h" namespace "aoti":
    ctypedef void* (*TorchWrap)(const Tensor&)
    TorchWrap find_torch_wrap() noexcept
    Failure wrap_for_torch(TorchWrap wrap, const Tensor& tensor, void*& made) noexcept


cdef extern from "aoti/values.h" namespace "aoti" nogil:
    Failure find_out_of_range(
        const vector[InputSpec]& specs,
        const vector[Tensor]& inputs,
        const int64_t* symbols,
        int64_t& index) noexcept


cdef extern from "aoti/device.h" namespace "aoti" nogil:
    Failure find_device(const string& name, Place& place) noexcept
    Failure current_stream(const Place& place, int64_t& number, uintptr_t& handle) noexcept
    Failure find_stream(const Place& place, uintptr_t handle, int64_t& number) noexcept
    Failure follow(const Place& place, int64_t stream, int64_t ahead) noexcept
    Failure used_on(const Tensor& tensor, int64_t stream) noexcept
    Failure move_to(const Tensor& tensor, const Place& place, Tensor& moved) noexcept
    Failure upload(
        const vector[InputSpec]& specs, const Place& otherwise, vector[Tensor]& inputs) noexcept
    Failure memory_of(const Place& place, int64_t& now, int64_t& peak) noexcept
    Failure forget_peak(const Place& place) noexcept

    cdef cppclass StreamScope:
        StreamScope()
        Failure enter(const Place& place, int64_t number) noexcept

    Failure add_ones(const string& device, int64_t count, double& sum) noexcept


cdef extern from "aoti/operators.h" namespace "aoti" nogil:
    Failure has_operator(const string& name, const string& overload, cbool& found) noexcept


cdef extern from "aoti/build_info.h" namespace "aoti" nogil:
    const char* build_info() noexcept
