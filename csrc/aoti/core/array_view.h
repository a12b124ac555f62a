#pragma once

// An array as its owner describes it. Nothing is owned or copied here.

#include <aoti/core/device.h>
#include <aoti/core/dtype.h>

#include <algorithm>
#include <cstdint>

namespace aoti {

// Fixed bounds, so that checking an input allocates nothing. numpy's own limit is 64 dimensions.
constexpr int kMaxRank = 64;
constexpr int kMaxSymbols = 64;

// Valid as long as the owner of the array is, and its shape stays as it is.
struct ArrayView {
  void* data = nullptr;
  DType dtype = kNoDType;
  int rank = 0;
  int64_t itemsize = 1;
  int64_t unit = 1;  // bytes that a stride of one means: numpy counts bytes, DLPack elements
  const int64_t* sizes = nullptr;
  const int64_t* strides = nullptr;
  bool writable = true;
  Device device = kCpu;
  bool anywhere = false;  // host memory of a library without devices: taken to any device
};

// A product that wraps around: the sizes of an empty tensor may have one that does not fit.
constexpr int64_t wrapping_product(int64_t one, int64_t other) noexcept {
  return static_cast<int64_t>(static_cast<uint64_t>(one) * static_cast<uint64_t>(other));
}

// The stride outside of a dimension with this stride and size. An empty dimension counts as one.
constexpr int64_t outer_stride(int64_t stride, int64_t size) noexcept {
  return wrapping_product(stride, std::max<int64_t>(size, 1));
}

// Fills `strides`, in elements, for C order.
inline void fill_c_order(int rank, const int64_t* sizes, int64_t* strides) noexcept {
  int64_t stride = 1;
  for (int i = rank; i-- > 0;) {
    strides[i] = stride;
    stride = outer_stride(stride, sizes[i]);
  }
}

// Fills `strides` (room for kMaxRank) with the array's own, in elements.
inline void own_strides(const ArrayView& array, int64_t* strides) noexcept {
  for (int i = 0; i < array.rank; ++i) {
    strides[i] = array.strides[i] * array.unit / array.itemsize;
  }
}

// Whether `pointer` lies in the memory of `array`.
inline bool contains(const ArrayView& array, const void* pointer) noexcept {
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

}  // namespace aoti
