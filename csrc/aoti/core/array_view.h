#pragma once

// An array as its owner describes it. Nothing is owned or copied here.

#include <aoti/core/device.h>
#include <aoti/core/dtype.h>

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

// Fills `strides` (room for kMaxRank) with the array's own, in elements.
inline void own_strides(const ArrayView& array, int64_t* strides) noexcept {
  for (int i = 0; i < array.rank; ++i) {
    strides[i] = array.strides[i] * array.unit / array.itemsize;
  }
}

// Whether some dimension has neighbouring elements next to each other.
inline bool has_unit_stride(const ArrayView& array) noexcept {
  for (int i = 0; i < array.rank; ++i) {
    if (array.sizes[i] > 1 && array.strides[i] * array.unit == array.itemsize) {
      return true;
    }
  }
  return false;
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
