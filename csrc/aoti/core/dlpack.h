#pragma once

// Tensors as DLPack describes them (https://dmlc.github.io/dlpack): those of other libraries, and
// ours as others see them. Nothing here needs the GIL; deleters may be called from any thread.

#include <aoti/core/check.h>
#include <aoti/core/tensor.h>

#include <dlpack/dlpack.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace aoti {

// Whether an engine could have this dtype: whole bytes, no vectors of several lanes.
constexpr bool is_plain(DLDataType type) noexcept {
  return type.lanes == 1 && type.bits != 0 && type.bits % 8 == 0;
}

inline constexpr const char* kNoMemory = "its data pointer is null; it has no memory to read";

// What is wrong with the sizes of a tensor of another library; null if nothing.
inline const char* fault_of_sizes(const DLTensor& tensor) noexcept {
  if (tensor.ndim < 0 || tensor.ndim > kMaxRank) {
    return "its number of dimensions is not in 0..64";
  }
  if (tensor.ndim > 0 && tensor.shape == nullptr) {
    return "its shape pointer is null; it has no sizes";
  }
  for (int i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] < 0) {
      return "a size is negative";
    }
  }
  return nullptr;
}

// What is wrong with its sizes, strides and address; null if nothing. Reads no element: whether the
// memory is there is not known.
inline const char* fault_of(const DLTensor& tensor) noexcept {
  if (const char* fault = fault_of_sizes(tensor)) {
    return fault;
  }
  int64_t* const end_of_sizes = tensor.shape + tensor.ndim;
  if (std::find(tensor.shape, end_of_sizes, 0) != end_of_sizes) {
    return nullptr;
  }
  if (tensor.data == nullptr) {
    return kNoMemory;
  }
  const int64_t itemsize = itemsize_of(tensor.dtype);
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
  int64_t bytes = itemsize;
  uint64_t begin = 0;
  uint64_t end = 0;
  bool outside = __builtin_add_overflow(address, tensor.byte_offset, &begin);
  outside |= __builtin_add_overflow(begin, itemsize, &end);
  for (int i = 0; i < tensor.ndim; ++i) {
    outside |= __builtin_mul_overflow(bytes, tensor.shape[i], &bytes);
    // A dimension of one element has no step: its stride may be anything.
    if (tensor.shape[i] > 1 && tensor.strides != nullptr) {
      int64_t extent = 0;
      outside |= __builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &extent);
      outside |= __builtin_mul_overflow(extent, itemsize, &extent);
      uint64_t& edge = extent < 0 ? begin : end;
      outside |= __builtin_add_overflow(edge, extent, &edge);
    }
  }
  return outside ? "its elements lie beyond all addresses" : nullptr;
}

// Describes the tensor of another library. kUnreadable if an ArrayView cannot describe it.
inline MismatchKind describe(const DLTensor& tensor, bool writable, ArrayView& array) noexcept {
  array.dtype = kNoDType;
  if (!is_plain(tensor.dtype)) {
    return MismatchKind::kDType;
  }
  const char* fault = fault_of(tensor);
  if (fault != nullptr || (tensor.ndim > 0 && tensor.strides == nullptr)) {
    return fault == kNoMemory ? MismatchKind::kNull : MismatchKind::kUnreadable;
  }
  array.data =
      tensor.data == nullptr ? nullptr : static_cast<char*>(tensor.data) + tensor.byte_offset;
  array.dtype = dtype_of(tensor.dtype);
  array.rank = tensor.ndim;
  array.itemsize = array.unit = itemsize_of(tensor.dtype);
  array.sizes = tensor.shape;
  array.strides = tensor.strides;
  array.writable = writable;
  array.device = is_host(tensor.device.device_type) ? kCpu : tensor.device;
  array.anywhere = false;
  return MismatchKind::kNone;
}

// Makes a tensor of a managed one, which it owns from then on: its deleter is called when the last
// user of the memory is gone. After a failure `managed` is still the caller's.
template <class Managed>
Status from_dlpack(Managed* managed, Tensor& tensor) noexcept {
  return catch_all([&]() -> Status {
    DLTensor view = managed->dl_tensor;
    const auto refuse = [](const char* why) { return failed(StatusCode::kExecution, why); };
    if (!is_plain(view.dtype)) {
      return refuse("torch has no such dtype");
    }
    if (const char* fault = fault_of(view)) {
      return refuse(fault);
    }
    int64_t strides[kMaxRank];
    int64_t step = 1;
    for (int i = view.ndim; i-- > 0;) {
      // Before DLPack 1.2 no strides mean C order.
      strides[i] = view.strides != nullptr ? view.strides[i] : step;
      step = outer_stride(step, view.shape[i]);
      if (strides[i] < 0 && view.shape[i] > 1) {
        return refuse("a stride is negative, which torch does not support");
      }
      strides[i] = std::max<int64_t>(strides[i], 0);
    }
    view.data = view.data == nullptr ? nullptr : static_cast<char*>(view.data) + view.byte_offset;
    view.byte_offset = 0;
    view.strides = strides;
    view.device = is_host(view.device.device_type) ? kCpu : view.device;
    tensor = Tensor::over(view, managed, [](void* owner) {
      auto* owned = static_cast<Managed*>(owner);
      if (owned->deleter != nullptr) {
        owned->deleter(owned);
      }
    });
    return {};
  });
}

// Calls the deleter of a managed tensor that nobody took over.
template <class Managed>
void discard(Managed* managed) noexcept {
  if (managed != nullptr && managed->deleter != nullptr) {
    managed->deleter(managed);
  }
}

// Hands a tensor out: a managed tensor that shares its memory and keeps it alive.
template <class Managed>
Status to_dlpack(const Tensor& tensor, uint64_t flags, Managed*& out) noexcept {
  struct Shared {
    Managed managed;
    Tensor tensor;
  };
  return catch_all([&]() -> Status {
    auto shared = std::make_unique<Shared>();
    shared->tensor = tensor;
    shared->managed.dl_tensor = tensor.view();
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

// A new tensor on the CPU in C order with the dtype and sizes of a prototype.
inline Status allocate_like(const DLTensor& prototype, Tensor& tensor) noexcept {
  return catch_all([&]() -> Status {
    if (!is_plain(prototype.dtype) || !is_host(prototype.device.device_type)) {
      return failed(StatusCode::kExecution, "aoti has no tensors of this dtype, or on this device");
    }
    if (const char* fault = fault_of_sizes(prototype)) {
      return failed(StatusCode::kExecution, fault);
    }
    tensor = Tensor::allocate(dtype_of(prototype.dtype), prototype.ndim, prototype.shape, nullptr);
    return {};
  });
}

}  // namespace aoti
