"""Declarations of the C++ that the core is built on: libtorch, and csrc/aoti. Nothing else."""

from libc.stdint cimport int64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "ATen/Tensor.h" namespace "at" nogil:
    cdef cppclass Tensor:
        Tensor()
        void reset() noexcept


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


cdef extern from "torch/csrc/inductor/aoti_package/model_package_loader.h" \
        namespace "torch::inductor" nogil:
    # Constructed, run and destroyed through csrc/aoti/loader.h only, which adds the locks and
    # catches what these throw.
    cdef cppclass AOTIModelPackageLoader:
        pass


cdef extern from "aoti/errors.h" namespace "aoti" nogil:
    cdef enum class Fault(int):
        kNone
        kClosed
        kBusy
        kRunLost
        kThreadsLost
        kMemory
        kExecution

    cdef cppclass Failure:
        Fault fault
        string message
        string detail


cdef extern from "aoti/permits.h" namespace "aoti" nogil:
    cdef cppclass Permits:
        Permits(size_t count) noexcept


cdef extern from "aoti/loader.h" namespace "aoti" nogil:
    Failure open(
        unique_ptr[AOTIModelPackageLoader]& loader,
        const string& path,
        const string& model_name,
        cbool single_threaded,
        size_t num_runners,
        signed char device_index,
        vector[string]& call_spec,
        vector[string]& constant_fqns) noexcept
    Failure run(
        const unique_ptr[AOTIModelPackageLoader]& loader,
        Permits& permits,
        int threads,
        vector[Tensor]& inputs,
        vector[Tensor]& outputs) noexcept
    Failure time_runs(
        const unique_ptr[AOTIModelPackageLoader]& loader,
        Permits& permits,
        int threads,
        const vector[Tensor]& inputs,
        size_t repeats,
        double& seconds) noexcept
    void close(unique_ptr[AOTIModelPackageLoader]& loader, Permits& permits) noexcept
    void abandon(unique_ptr[AOTIModelPackageLoader]& loader) noexcept


cdef extern from "aoti/tensor.h" namespace "aoti" nogil:
    const int kMaxSymbols
    const int kAny

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
        cbool bounded
        Size low
        Size high

    cdef cppclass Borrowed:
        void* data
        int dtype
        int rank
        int64_t itemsize
        const int64_t* sizes
        const int64_t* strides
        cbool writable

    cdef enum class Mismatch(int):
        kNone
        kDtype
        kRank
        kSize
        kRange
        kNull
        kLayout
        kReadOnly

    Mismatch check(
        const InputSpec& spec,
        const Borrowed& array,
        const Range* ranges,
        int64_t* symbols,
        int64_t* strides) noexcept
    void own_strides(const Borrowed& array, int64_t* strides) noexcept
    Failure borrow(
        const Borrowed& array, const int64_t* strides, vector[Tensor]& tensors) noexcept
    cbool contains(const Borrowed& array, const void* pointer) noexcept

    cdef cppclass View:
        void* data
        int dtype
        int rank
        int64_t itemsize
        int64_t bytes
        int64_t* sizes
        int64_t* strides

    Failure view(Tensor& tensor, View& view) noexcept


cdef extern from "aoti/values.h" namespace "aoti" nogil:
    Failure find_out_of_range(
        const vector[InputSpec]& specs,
        const vector[Tensor]& inputs,
        const int64_t* symbols,
        int64_t& index) noexcept


cdef extern from "aoti/device.h" namespace "aoti" nogil:
    Failure add_ones(const string& device, int64_t count, double& sum) noexcept


cdef extern from "aoti/operators.h" namespace "aoti" nogil:
    Failure has_operator(const string& name, const string& overload, cbool& found) noexcept


cdef extern from "aoti/build_info.h" namespace "aoti" nogil:
    const char* build_info() noexcept
