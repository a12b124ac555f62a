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

// Describes the tensor of another library. kUnreadable if an ArrayView cannot describe it.
inline MismatchKind describe(const DLTensor& tensor, bool writable, ArrayView& array) noexcept {
  array.dtype = kNoDType;
  if (!is_plain(tensor.dtype)) {
    return MismatchKind::kDType;
  }
  if (tensor.ndim < 0 || tensor.ndim > kMaxRank ||
      (tensor.ndim > 0 && (tensor.strides == nullptr || tensor.shape == nullptr))) {
    return MismatchKind::kUnreadable;
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
    if (view.ndim < 0 || view.ndim > kMaxRank || (view.ndim > 0 && view.shape == nullptr)) {
      return refuse("its number of dimensions makes no sense");
    }
    int64_t strides[kMaxRank];
    int64_t step = 1;
    for (int i = view.ndim; i-- > 0;) {
      if (view.shape[i] < 0) {
        return refuse("a size is negative");
      }
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
    if (!is_plain(prototype.dtype) || !is_host(prototype.device.device_type) ||
        prototype.ndim < 0 || prototype.ndim > kMaxRank) {
      return failed(StatusCode::kExecution, "aoti has no tensors of this dtype, or on this device");
    }
    tensor = Tensor::allocate(dtype_of(prototype.dtype), prototype.ndim, prototype.shape, nullptr);
    return {};
  });
}

}  // namespace aoti
