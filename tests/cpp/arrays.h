#pragma once

// Arrays and owners for tests.

#include <aoti/core/array_view.h>
#include <aoti/core/dtype.h>

#include <dlpack/dlpack.h>

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

constexpr aoti::DType make_dtype(int code, int bits) {
  return aoti::dtype_of({static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1});
}

constexpr aoti::DType kUInt8 = make_dtype(kDLUInt, 8);
constexpr aoti::DType kInt32 = make_dtype(kDLInt, 32);
constexpr aoti::DType kInt64 = make_dtype(kDLInt, 64);
constexpr aoti::DType kFloat32 = make_dtype(kDLFloat, 32);
constexpr aoti::DType kFloat64 = make_dtype(kDLFloat, 64);

// Stands for what keeps memory alive, and counts how often it was given back.
struct Owner {
  std::atomic<int> released{0};

  static void release(void* self) { ++static_cast<Owner*>(self)->released; }
};

// Sizes and strides in elements; those of C order if none are given.
struct Shape {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;

  Shape(std::vector<int64_t> given) : sizes(std::move(given)), strides(sizes.size()) {
    aoti::fill_c_order(rank(), sizes.data(), strides.data());
  }
  Shape(std::vector<int64_t> given, std::vector<int64_t> steps)
      : sizes(std::move(given)), strides(std::move(steps)) {}

  int rank() const { return static_cast<int>(sizes.size()); }

  // Valid as long as this is.
  DLTensor over(const void* data, aoti::DType dtype) const {
    DLTensor view{};
    view.data = const_cast<void*>(data);
    view.device = aoti::kCpu;
    view.ndim = rank();
    view.dtype = aoti::dl_type_of(dtype);
    view.shape = const_cast<int64_t*>(sizes.data());
    view.strides = const_cast<int64_t*>(strides.data());
    return view;
  }

  aoti::ArrayView array(const void* data, aoti::DType dtype) const {
    aoti::ArrayView view;
    view.data = const_cast<void*>(data);
    view.dtype = dtype;
    view.rank = rank();
    view.itemsize = view.unit = aoti::itemsize_of(dtype);
    view.sizes = sizes.data();
    view.strides = strides.data();
    return view;
  }
};
