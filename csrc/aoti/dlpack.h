#pragma once

// Tensors as DLPack describes them (https://dmlc.github.io/dlpack): what others hand us, and what
// we hand out. Nothing here needs the GIL, and deleters may be called from any thread.

#include <aoti/errors.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>
#include <ATen/dlpack.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace aoti {

namespace detail {

struct Pairing {
  c10::ScalarType ours;
  uint8_t code;
  uint8_t bits;
};

constexpr Pairing kPairings[] = {
    {c10::ScalarType::Float, kDLFloat, 32},
    {c10::ScalarType::Long, kDLInt, 64},
    {c10::ScalarType::Int, kDLInt, 32},
    {c10::ScalarType::Bool, kDLBool, 8},
    {c10::ScalarType::Half, kDLFloat, 16},
    {c10::ScalarType::BFloat16, kDLBfloat, 16},
    {c10::ScalarType::Double, kDLFloat, 64},
    {c10::ScalarType::Byte, kDLUInt, 8},
    {c10::ScalarType::Char, kDLInt, 8},
    {c10::ScalarType::Short, kDLInt, 16},
    {c10::ScalarType::UInt16, kDLUInt, 16},
    {c10::ScalarType::UInt32, kDLUInt, 32},
    {c10::ScalarType::UInt64, kDLUInt, 64},
    {c10::ScalarType::ComplexHalf, kDLComplex, 32},
    {c10::ScalarType::ComplexFloat, kDLComplex, 64},
    {c10::ScalarType::ComplexDouble, kDLComplex, 128},
    {c10::ScalarType::Float8_e4m3fn, kDLFloat8_e4m3fn, 8},
    {c10::ScalarType::Float8_e4m3fnuz, kDLFloat8_e4m3fnuz, 8},
    {c10::ScalarType::Float8_e5m2, kDLFloat8_e5m2, 8},
    {c10::ScalarType::Float8_e5m2fnuz, kDLFloat8_e5m2fnuz, 8},
    {c10::ScalarType::Float8_e8m0fnu, kDLFloat8_e8m0fnu, 8},
};

}  // namespace detail

// torch's number for a dtype, kAny if it has none.
inline int dtype_number(const DLDataType& type) noexcept {
  for (const detail::Pairing& pairing : detail::kPairings) {
    if (pairing.code == type.code && pairing.bits == type.bits && type.lanes == 1) {
      return static_cast<int>(pairing.ours);
    }
  }
  return kAny;
}

// PyTorch calls the GPUs of ROCm cuda too; DLPack does not.
#ifdef USE_ROCM
constexpr DLDeviceType kDLGpu = kDLROCM;
#else
constexpr DLDeviceType kDLGpu = kDLCUDA;
#endif

// Where memory lies; what CUDA or ROCm pinned, the CPU reads where it is. False for a device that
// libtorch cannot use here.
inline bool place_of(int device_type, int number, Place& place) noexcept {
  if (device_type == kDLCPU || device_type == kDLCUDAHost || device_type == kDLROCMHost) {
    place = Place();
    return true;
  }
  if (device_type != kDLGpu || number < 0 || number > std::numeric_limits<int8_t>::max()) {
    return false;
  }
  place = c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(number));
  return usable(place);
}

inline DLDevice dl_device_of(const at::Tensor& tensor) noexcept {
  return tensor.is_cpu() ? DLDevice{kDLCPU, 0} : DLDevice{kDLGpu, tensor.get_device()};
}

// Describes what another library's tensor says of itself. kLayout if there is more to it than an
// array can say.
inline Mismatch describe(const DLTensor& tensor, bool writable, Borrowed& array) noexcept {
  array.anywhere = false;
  if (!place_of(tensor.device.device_type, tensor.device.device_id, array.place)) {
    return Mismatch::kDevice;
  }
  array.dtype = dtype_number(tensor.dtype);
  if (array.dtype == kAny) {
    return Mismatch::kDtype;
  }
  if (tensor.ndim < 0 || tensor.ndim > kMaxRank || (tensor.ndim > 0 && !tensor.strides)) {
    return Mismatch::kLayout;
  }
  array.data =
      tensor.data == nullptr ? nullptr : static_cast<char*>(tensor.data) + tensor.byte_offset;
  array.rank = tensor.ndim;
  array.itemsize = array.unit = tensor.dtype.bits / 8;
  array.sizes = tensor.shape;
  array.strides = tensor.strides;
  array.writable = writable;
  return Mismatch::kNone;
}

// Whether some dimension has neighbouring elements next to each other.
inline bool has_unit_stride(const Borrowed& array) noexcept {
  for (int i = 0; i < array.rank; ++i) {
    if (array.sizes[i] > 1 && array.strides[i] * array.unit == array.itemsize) {
      return true;
    }
  }
  return false;
}

// Makes a tensor of a managed one, which it owns from then on: its deleter is called when the last
// user of the memory is gone. On failure, `managed` is still the caller's.
template <class Managed>
Failure adopt(Managed* managed, at::Tensor& tensor) noexcept {
  return guarded([&]() -> Failure {
    const DLTensor& source = managed->dl_tensor;
    const auto refuse = [](const char* why) -> Failure { return {Fault::kExecution, why, {}}; };
    Place place;
    if (!place_of(source.device.device_type, source.device.device_id, place)) {
      return refuse("it lies on a device that this libtorch cannot use");
    }
    const int dtype = dtype_number(source.dtype);
    if (dtype == kAny) {
      return refuse("torch has no such dtype");
    }
    if (source.ndim < 0 || source.ndim > kMaxRank || (source.ndim > 0 && !source.shape)) {
      return refuse("its number of dimensions makes no sense");
    }
    const c10::IntArrayRef sizes(source.shape, static_cast<std::size_t>(source.ndim));
    std::vector<int64_t> strides(sizes.size());
    int64_t step = 1;
    for (std::size_t i = sizes.size(); i-- > 0;) {
      // Before DLPack 1.2 no strides mean C order.
      strides[i] = source.strides ? source.strides[i] : step;
      step *= std::max<int64_t>(sizes[i], 1);
      if (sizes[i] < 0) {
        return refuse("a size is negative");
      }
      if (strides[i] < 0 && sizes[i] > 1) {
        return refuse("a stride is negative, which torch does not know");
      }
      strides[i] = std::max<int64_t>(strides[i], 0);
    }
    void* data = source.data ? static_cast<char*>(source.data) + source.byte_offset : nullptr;
    tensor = detail::tensor_over(c10::DataPtr(data, place), dtype, sizes, strides);
    // Last, so that nothing that throws comes after it.
    const auto release = [](void* context) {
      auto* owned = static_cast<Managed*>(context);
      if (owned->deleter) {
        owned->deleter(owned);
      }
    };
    tensor.storage().set_data_ptr_noswap(c10::DataPtr(data, managed, release, place));
    return {};
  });
}

// Calls the deleter of a managed tensor that nobody took.
template <class Managed>
void discard(Managed* managed) noexcept {
  if (managed != nullptr && managed->deleter != nullptr) {
    managed->deleter(managed);
  }
}

// Fills a description of a tensor; valid as long as the tensor is.
inline Failure describe_to(const at::Tensor& tensor, DLTensor& out) noexcept {
  const auto dtype = tensor.scalar_type();
  for (const detail::Pairing& pairing : detail::kPairings) {
    if (pairing.ours == dtype) {
      out.data = const_cast<void*>(tensor.const_data_ptr());
      out.device = dl_device_of(tensor);
      out.ndim = static_cast<int32_t>(tensor.dim());
      out.dtype = {pairing.code, pairing.bits, 1};
      // Others are told not to write there; the structure is older than const-correctness.
      out.shape = const_cast<int64_t*>(tensor.sizes().data());
      out.strides = const_cast<int64_t*>(tensor.strides().data());
      out.byte_offset = 0;
      return {};
    }
  }
  return guarded(
      [&]() -> Failure { return {Fault::kExecution, "DLPack has no dtype for it", {}}; });
}

// Hands a tensor out: a managed tensor that shares its memory and keeps it alive.
template <class Managed>
Failure produce(const at::Tensor& tensor, uint64_t flags, Managed*& out) noexcept {
  struct Shared {
    Managed managed;
    at::Tensor tensor;
  };
  return guarded([&]() -> Failure {
    auto shared = std::make_unique<Shared>();
    shared->tensor = tensor;
    if (Failure failure = describe_to(shared->tensor, shared->managed.dl_tensor);
        failure.fault != Fault::kNone) {
      return failure;
    }
    if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>) {
      shared->managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
      shared->managed.flags = flags;
    }
    shared->managed.manager_ctx = shared.get();
    shared->managed.deleter = [](Managed* self) { delete static_cast<Shared*>(self->manager_ctx); };
    out = &shared.release()->managed;
    return {};
  });
}

// A new tensor in C order with the dtype and shape of a prototype.
inline Failure allocate_like(const DLTensor& prototype, at::Tensor& tensor) noexcept {
  return guarded([&]() -> Failure {
    const int dtype = dtype_number(prototype.dtype);
    Place place;
    if (dtype == kAny ||
        !place_of(prototype.device.device_type, prototype.device.device_id, place)) {
      return {Fault::kExecution, "aoti has no tensors of this dtype, or on this device", {}};
    }
    const c10::IntArrayRef sizes(prototype.shape, static_cast<std::size_t>(prototype.ndim));
    tensor = at::empty(
        sizes, at::TensorOptions().device(place).dtype(static_cast<c10::ScalarType>(dtype)));
    return {};
  });
}

}  // namespace aoti
