#pragma once

// Memory as a tensor, and what an input must look like. No memory is owned or copied here.

#include <aoti/errors.h>

#include <ATen/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace aoti {

// Fixed bounds, so that checking an input allocates nothing. numpy's own limit is 64 dimensions.
constexpr int kMaxRank = 64;
constexpr int kMaxSymbols = 64;

constexpr int kAny = -1;

// A device; the CPU, which has no number, unless it is said otherwise.
class Place {
 public:
  Place() = default;
  Place(const c10::Device& device) noexcept
      : device_(device.type(), device.is_cpu() ? -1 : device.index()) {}

  operator const c10::Device&() const noexcept { return device_; }
  bool operator==(const Place&) const noexcept = default;

  bool is_cpu() const noexcept { return device_.is_cpu(); }
  c10::DeviceType type() const noexcept { return device_.type(); }
  c10::DeviceIndex index() const noexcept { return device_.index(); }

 private:
  c10::Device device_{c10::kCPU};
};

inline Place place_of(const at::Tensor& tensor) noexcept { return tensor.device(); }

// Whether libtorch can use such a device, which it can when the backend's library is loaded.
inline bool usable(const c10::Device& device) noexcept {
  return device.is_cpu() || c10::impl::hasDeviceGuardImpl(device.type());
}

// A size of an input, or a bound of its values: `scale * symbol + offset`. A symbol is bound by the
// first input that has it, and later ones must agree. Without a scale it is static.
struct Size {
  int64_t symbol = 0;
  int64_t scale = 0;
  int64_t offset = 0;
};

// What a symbol may stand for.
struct Range {
  int64_t least = 0;
  int64_t most = std::numeric_limits<int64_t>::max();
};

// What one input must be. The default accepts any C-contiguous array.
struct InputSpec {
  int dtype = kAny;  // c10::ScalarType
  int rank = kAny;
  bool writable = false;  // the model writes into it
  std::vector<Size> sizes;
  std::vector<int64_t> order;    // dense, from the innermost dimension outwards; empty: C order
  std::vector<int64_t> strides;  // in elements; when set, exactly these whatever `order` says
  Place place;
  bool bounded = false;  // its values lie in low..high
  Size low;
  Size high;
};

// An array as its owner describes it; valid as long as the owner is.
struct Borrowed {
  void* data = nullptr;
  int dtype = kAny;
  int rank = 0;
  int64_t itemsize = 1;
  int64_t unit = 1;  // bytes that a stride of one means: numpy counts bytes, DLPack elements
  const int64_t* sizes = nullptr;
  const int64_t* strides = nullptr;
  bool writable = true;
  Place place;
  bool anywhere = false;  // host memory that knows no devices: taken to wherever the model runs
};

// The first thing that is wrong with an input, in the order in which it is looked at.
enum class Mismatch : int {
  kNone = 0,
  kDevice,
  kDtype,
  kRank,
  kSize,
  kRange,
  kNull,
  kAligned,
  kLayout,
  kReadOnly,
};

namespace detail {

// The strides, in elements, that the model's kernels take for these sizes.
inline void wanted_strides(
    const InputSpec& spec, const Borrowed& array, int64_t* strides) noexcept {
  if (!spec.strides.empty()) {
    std::copy(spec.strides.begin(), spec.strides.end(), strides);
    return;
  }
  int64_t stride = 1;
  for (int i = 0; i < array.rank; ++i) {
    const int64_t dim = spec.order.empty() ? array.rank - 1 - i : spec.order[i];
    strides[dim] = stride;
    stride *= std::max<int64_t>(array.sizes[dim], 1);
  }
}

inline int64_t value(const Size& size, const int64_t* symbols) noexcept {
  return size.scale == 0 ? size.offset : size.scale * symbols[size.symbol] + size.offset;
}

// Whether an actual size is what is wanted; binds the symbol if it is not bound yet.
inline Mismatch fits(
    const Size& wanted, int64_t actual, const Range* ranges, int64_t* symbols) noexcept {
  if (wanted.scale == 0) {
    return actual == wanted.offset ? Mismatch::kNone : Mismatch::kSize;
  }
  int64_t& bound = symbols[wanted.symbol];
  if (bound == kAny) {
    const int64_t meaning = (actual - wanted.offset) / wanted.scale;
    if (meaning < 0 || actual != wanted.scale * meaning + wanted.offset) {
      return Mismatch::kSize;
    }
    const Range& range = ranges[wanted.symbol];
    if (meaning < range.least || meaning > range.most) {
      return Mismatch::kRange;
    }
    bound = meaning;
  }
  return actual == wanted.scale * bound + wanted.offset ? Mismatch::kNone : Mismatch::kSize;
}

}  // namespace detail

// Whether an array lies where it is wanted.
inline bool placed(const InputSpec& spec, const Borrowed& array) noexcept {
  return array.place == spec.place || array.anywhere;
}

// Checks `array` against `spec` and fills `strides` (room for kMaxRank) with those the tensor must
// have. `symbols` (kMaxSymbols) holds the sizes bound so far in this call, kAny where none is, and
// `ranges` what each may be.
inline Mismatch check(
    const InputSpec& spec,
    const Borrowed& array,
    const Range* ranges,
    int64_t* symbols,
    int64_t* strides) noexcept {
  if (spec.dtype != kAny && spec.dtype != array.dtype) {
    return Mismatch::kDtype;
  }
  if (spec.rank != kAny && spec.rank != array.rank) {
    return Mismatch::kRank;
  }
  bool empty = false;
  for (int i = 0; i < array.rank; ++i) {
    const int64_t size = array.sizes[i];
    empty = empty || size == 0;
    if (spec.rank != kAny) {
      const Mismatch mismatch = detail::fits(spec.sizes[i], size, ranges, symbols);
      if (mismatch != Mismatch::kNone) {
        return mismatch;
      }
    }
  }
  if (array.data == nullptr && !empty) {
    return Mismatch::kNull;
  }
  // What the C++ compiler aligns its types to; a complex number is two reals.
  const int64_t alignment = std::min<int64_t>(array.itemsize, 8);
  if (!empty && reinterpret_cast<std::uintptr_t>(array.data) % alignment != 0) {
    return Mismatch::kAligned;
  }
  detail::wanted_strides(spec, array, strides);
  for (int i = 0; i < array.rank && !empty; ++i) {
    // A dimension of one element has no step: numpy may say anything there.
    if (array.sizes[i] != 1 && array.strides[i] * array.unit != strides[i] * array.itemsize) {
      return Mismatch::kLayout;
    }
  }
  return spec.writable && !array.writable ? Mismatch::kReadOnly : Mismatch::kNone;
}

// Fills `strides` with those that `array` has, for a caller who vouches for them.
inline void own_strides(const Borrowed& array, int64_t* strides) noexcept {
  for (int i = 0; i < array.rank; ++i) {
    strides[i] = array.strides[i] * array.unit / array.itemsize;
  }
}

namespace detail {

// Apart from the CPU's, which every call asks for.
[[gnu::noinline, gnu::cold]] inline c10::DispatchKeySet keys_elsewhere(const c10::Device& device) {
  return c10::DispatchKeySet(c10::computeDispatchKey(std::nullopt, std::nullopt, device));
}

inline c10::DispatchKeySet keys_of(const c10::Device& device) {
  return device.is_cpu() ? c10::DispatchKeySet(c10::DispatchKey::CPU) : keys_elsewhere(device);
}

// A tensor over `data`. What at::from_blob makes, without the thread state that it sets aside and
// the deleter that it wraps. Strides are in elements and not negative.
inline at::Tensor tensor_over(
    c10::DataPtr data, int dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  const caffe2::TypeMeta type = c10::scalarTypeToTypeMeta(static_cast<c10::ScalarType>(dtype));
  int64_t elements = 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) {
      elements = 0;
      break;
    }
    elements += (sizes[i] - 1) * strides[i];
  }
  const c10::DispatchKeySet keys = keys_of(data.device());
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(
          c10::Storage::use_byte_size_t(),
          static_cast<std::size_t>(elements) * type.itemsize(),
          std::move(data)),
      keys,
      type);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return tensor;
}

}  // namespace detail

// A tensor over memory that somebody else keeps alive.
inline Failure borrow(
    const Borrowed& array, const int64_t* strides, std::vector<at::Tensor>& tensors) noexcept {
  return guarded([&]() -> Failure {
    const auto rank = static_cast<std::size_t>(array.rank);
    tensors.push_back(
        detail::tensor_over(
            c10::DataPtr(array.data, array.place),
            array.dtype,
            c10::IntArrayRef(array.sizes, rank),
            c10::IntArrayRef(strides, rank)));
    return {};
  });
}

// Describes a tensor.
inline void describe(const at::Tensor& tensor, bool writable, Borrowed& array) noexcept {
  array.data = const_cast<void*>(tensor.const_data_ptr());
  array.dtype = static_cast<int>(tensor.scalar_type());
  array.rank = static_cast<int>(tensor.dim());
  array.itemsize = array.unit = static_cast<int64_t>(tensor.itemsize());
  array.sizes = tensor.sizes().data();
  array.strides = tensor.strides().data();
  array.writable = writable;
  array.place = tensor.device();
  array.anywhere = false;
}

// Whether `pointer` lies in the memory of `array`.
inline bool contains(const Borrowed& array, const void* pointer) noexcept {
  const char* begin = static_cast<const char*>(array.data);
  const char* end = begin + array.itemsize;
  for (int i = 0; i < array.rank; ++i) {
    if (array.sizes[i] == 0) {
      return false;
    }
    const int64_t extent = (array.sizes[i] - 1) * array.strides[i] * array.unit;
    (extent < 0 ? begin : end) += extent;
  }
  return begin <= pointer && pointer < end;
}

// Prepares what a model returned for being handed out: a strided tensor without anything left to
// be computed lazily. `memory` becomes its address if it lies in memory that it does not own,
// which is that of an input or of a weight.
inline Failure finish(at::Tensor& tensor, void*& memory) noexcept {
  return guarded([&]() -> Failure {
    memory = nullptr;
    if (tensor.layout() != c10::kStrided || !usable(tensor.device()) || tensor.dim() > kMaxRank) {
      return {Fault::kExecution, "the model returned a tensor that is not strided", {}};
    }
    if (tensor.is_conj() || tensor.is_neg()) {
      tensor = tensor.resolve_conj().resolve_neg();
    }
    if (tensor.storage().data_ptr().get_context() == nullptr) {
      memory = tensor.data_ptr();
    }
    return {};
  });
}

// Makes a tensor in somebody else's memory the owner of `context`, which keeps that alive.
// `release` is called from any thread, with the GIL or without. On failure it is not called.
inline Failure anchor(at::Tensor& tensor, void* context, void (*release)(void*)) noexcept {
  return guarded([&]() -> Failure {
    tensor = detail::tensor_over(
        c10::DataPtr(tensor.data_ptr(), context, release, tensor.device()),
        static_cast<int>(tensor.scalar_type()),
        tensor.sizes(),
        tensor.strides());
    return {};
  });
}

// Replaces a tensor by a copy of itself in memory of its own, in C order.
inline Failure clone(at::Tensor& tensor) noexcept {
  return guarded([&]() -> Failure {
    tensor = tensor.clone(at::MemoryFormat::Contiguous);
    return {};
  });
}

// The same with the strides that it has.
inline Failure clone_preserving(at::Tensor& tensor) noexcept {
  return guarded([&]() -> Failure {
    tensor = tensor.clone(at::MemoryFormat::Preserve);
    return {};
  });
}

// Bytes of one element.
inline int64_t itemsize(int dtype) noexcept {
  return static_cast<int64_t>(c10::elementSize(static_cast<c10::ScalarType>(dtype)));
}

// A copy of a tensor with these strides, in elements.
inline Failure copy_strided(
    const at::Tensor& tensor, const std::vector<int64_t>& strides, at::Tensor& copy) noexcept {
  return guarded([&]() -> Failure {
    copy = tensor.new_empty_strided(tensor.sizes(), strides);
    copy.copy_(tensor);
    return {};
  });
}

// Writes outputs into the tensors that the caller gave for them; an undefined one is left out.
// `wrong` becomes the first whose dtype or shape is not that of its output, before any is written,
// and 0 if there are more or fewer of them than outputs.
inline Failure copy_outputs(
    const std::vector<at::Tensor>& outputs,
    const std::vector<at::Tensor>& targets,
    int64_t& wrong) noexcept {
  wrong = -1;
  return guarded([&]() -> Failure {
    if (targets.size() != outputs.size()) {
      wrong = 0;
      return {};
    }
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const at::Tensor& target = targets[i];
      if (target.defined() && (target.sizes() != outputs[i].sizes() ||
                               target.scalar_type() != outputs[i].scalar_type())) {
        wrong = static_cast<int64_t>(i);
        return {};
      }
    }
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const at::Tensor &from = outputs[i], &into = targets[i];
      if (!into.defined()) {
        continue;
      }
      if (from.strides() == into.strides() && from.is_contiguous() && from.is_cpu() &&
          into.is_cpu() && !from.is_conj() && !from.is_neg()) {
        // Much faster than copy_ where it is small. An output may be the input that it goes into.
        std::memmove(into.data_ptr(), from.const_data_ptr(), from.nbytes());
      } else {
        into.copy_(from);
      }
    }
    return {};
  });
}

// A tensor as a plain pointer that owns it, and back.
inline void* release(at::Tensor& tensor) noexcept { return tensor.unsafeReleaseTensorImpl(); }

inline at::Tensor reclaim(void* released) noexcept {
  return at::Tensor(
      c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
          static_cast<c10::TensorImpl*>(released)));
}

// Bytes of the elements.
inline int64_t bytes_of(const at::Tensor& tensor) noexcept {
  return static_cast<int64_t>(tensor.nbytes());
}

// What an array over a tensor's memory needs to know.
struct View {
  void* data = nullptr;
  int dtype = kAny;
  int rank = 0;
  int64_t bytes = 0;
  int64_t sizes[kMaxRank];
  int64_t strides[kMaxRank];  // in bytes
};

inline void view(const at::Tensor& tensor, View& view) noexcept {
  view.data = const_cast<void*>(tensor.const_data_ptr());
  view.dtype = static_cast<int>(tensor.scalar_type());
  view.rank = static_cast<int>(tensor.dim());
  view.bytes = static_cast<int64_t>(tensor.nbytes());
  const c10::IntArrayRef sizes = tensor.sizes(), strides = tensor.strides();
  const auto itemsize = static_cast<int64_t>(tensor.itemsize());
  for (int i = 0; i < view.rank; ++i) {
    view.sizes[i] = sizes[i];
    view.strides[i] = strides[i] * itemsize;
  }
}

}  // namespace aoti
