#pragma once

// What an input must be, and whether an array is that. Inline and without allocation: this runs for
// every input of every call.

#include <aoti/core/array_view.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace aoti {

constexpr int64_t kUnbound = -1;  // a symbol that no size has bound yet
constexpr int kAnyRank = -1;

// A size of an input, or a bound of its values: `scale * symbol + offset`. A symbol is bound by the
// first input that has it, and later ones must agree. A scale of 0 makes it static.
struct Size {
  int64_t symbol = 0;
  int64_t scale = 0;
  int64_t offset = 0;
};

// The values that a symbol may have.
struct Range {
  int64_t least = 0;
  int64_t most = std::numeric_limits<int64_t>::max();
};

// What one input must be. The default accepts any C-contiguous array.
struct InputSpec {
  DType dtype = kNoDType;
  int rank = kAnyRank;
  bool writable = false;  // the model writes into it
  std::vector<Size> sizes;
  std::vector<int64_t> order;    // dense, from the innermost dimension outwards; empty: C order
  std::vector<int64_t> strides;  // in elements; when set, exactly these whatever `order` says
  Device device = kCpu;
  bool bounded = false;  // its values lie in low..high
  Size low;
  Size high;
};

// The kinds of things that can be wrong with an input, in the order in which they are checked.
enum class MismatchKind : int {
  kNone = 0,
  kUnreadable,  // not an array that the core can look at
  kDevice,
  kDType,
  kRank,
  kSize,      // a static size, or one that its expression cannot have
  kConflict,  // a size that disagrees with an earlier one that shares its symbol
  kRange,
  kNull,
  kAlignment,
  kByteOrder,
  kStrides,
  kReadOnly,
};

// The first thing that is wrong with an input.
struct Mismatch {
  MismatchKind kind = MismatchKind::kNone;
  int dim = -1;          // of kSize, kConflict, kRange and kStrides
  int64_t expected = 0;  // a rank, size, alignment or stride in elements; of kRange the bound
  int64_t got = 0;       // the same of the array; a stride in bytes

  explicit operator bool() const noexcept { return kind != MismatchKind::kNone; }
};

inline int64_t evaluate(const Size& size, const int64_t* symbols) noexcept {
  return size.scale == 0 ? size.offset : size.scale * symbols[size.symbol] + size.offset;
}

namespace detail {

// The strides, in elements, that the model's kernels take for these sizes.
inline void wanted_strides(
    const InputSpec& spec, const ArrayView& array, int64_t* strides) noexcept {
  if (!spec.strides.empty()) {
    std::copy(spec.strides.begin(), spec.strides.end(), strides);
    return;
  }
  int64_t stride = 1;
  for (int i = 0; i < array.rank; ++i) {
    const int64_t dim = spec.order.empty() ? array.rank - 1 - i : spec.order[i];
    strides[dim] = stride;
    stride = outer_stride(stride, array.sizes[dim]);
  }
}

// Compares a size with the one that is wanted; binds the symbol if it is not bound yet.
inline Mismatch check_size(
    int dim, const Size& wanted, int64_t actual, const Range* ranges, int64_t* symbols) noexcept {
  if (wanted.scale == 0) {
    if (actual != wanted.offset) {
      return {MismatchKind::kSize, dim, wanted.offset, actual};
    }
    return {};
  }
  int64_t& bound = symbols[wanted.symbol];
  if (bound == kUnbound) {
    const int64_t meaning = (actual - wanted.offset) / wanted.scale;
    if (meaning < 0 || actual != wanted.scale * meaning + wanted.offset) {
      return {MismatchKind::kSize, dim, 0, actual};
    }
    const Range& range = ranges[wanted.symbol];
    if (meaning < range.least || meaning > range.most) {
      return {MismatchKind::kRange, dim, meaning < range.least ? range.least : range.most, actual};
    }
    bound = meaning;
  }
  const int64_t expected = wanted.scale * bound + wanted.offset;
  if (actual != expected) {
    return {MismatchKind::kConflict, dim, expected, actual};
  }
  return {};
}

// The first static size that is wrong, else `other`: an array with a wrong static size is another
// array, whatever a dynamic size before it is.
[[gnu::noinline, gnu::cold]] inline Mismatch static_first(
    const InputSpec& spec, const ArrayView& array, const Mismatch& other) noexcept {
  for (int i = 0; i < array.rank; ++i) {
    const Size& wanted = spec.sizes[i];
    if (wanted.scale == 0 && wanted.offset != array.sizes[i]) {
      return {MismatchKind::kSize, i, wanted.offset, array.sizes[i]};
    }
  }
  return other;
}

}  // namespace detail

// Whether an array lies where it is wanted.
inline bool placed(const InputSpec& spec, const ArrayView& array) noexcept {
  return same(array.device, spec.device) || array.anywhere;
}

// Checks `array` against `spec` and fills `strides` (room for kMaxRank) with those that the tensor
// must have. `symbols` (kMaxSymbols) holds the sizes bound so far in this call, kUnbound where none
// is, and `ranges` what each may be.
inline Mismatch check(
    const InputSpec& spec,
    const ArrayView& array,
    const Range* ranges,
    int64_t* symbols,
    int64_t* strides) noexcept {
  if (spec.dtype != kNoDType && spec.dtype != array.dtype) {
    return {MismatchKind::kDType, -1, spec.dtype, array.dtype};
  }
  if (spec.rank != kAnyRank && spec.rank != array.rank) {
    return {MismatchKind::kRank, -1, spec.rank, array.rank};
  }
  bool empty = false;
  for (int i = 0; i < array.rank; ++i) {
    const int64_t size = array.sizes[i];
    empty = empty || size == 0;
    if (spec.rank != kAnyRank) {
      const Mismatch mismatch = detail::check_size(i, spec.sizes[i], size, ranges, symbols);
      if (mismatch) {
        return detail::static_first(spec, array, mismatch);
      }
    }
  }
  detail::wanted_strides(spec, array, strides);
  if (!empty) {
    if (array.data == nullptr) {
      return {MismatchKind::kNull, -1, 0, 0};
    }
    // What the C++ compiler aligns its types to; a complex number is two reals.
    const int64_t alignment = std::min<int64_t>(array.itemsize, 8);
    const auto misaligned =
        static_cast<int64_t>(reinterpret_cast<std::uintptr_t>(array.data)) % alignment;
    if (misaligned != 0) {
      return {MismatchKind::kAlignment, -1, alignment, misaligned};
    }
    for (int i = 0; i < array.rank; ++i) {
      // A dimension of one element has no step: numpy may say anything there.
      if (array.sizes[i] != 1 && array.strides[i] * array.unit != strides[i] * array.itemsize) {
        return {MismatchKind::kStrides, i, strides[i], array.strides[i] * array.unit};
      }
    }
  }
  if (spec.writable && !array.writable) {
    return {MismatchKind::kReadOnly, -1, 0, 0};
  }
  return {};
}

}  // namespace aoti
