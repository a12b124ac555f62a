#include <aoti/core/tensor.h>
#include <aoti/core/values.h>

#include <bit>

namespace aoti {

namespace {

template <class Integer>
bool row_within(
    const char* data, int64_t count, int64_t stride, int64_t low, int64_t high) noexcept {
  const auto* elements = reinterpret_cast<const Integer*>(data);
  bool outside = false;
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) {  // without a branch, so that it vectorises
      const auto value = static_cast<int64_t>(elements[i]);
      outside |= (value < low) | (value > high);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const auto value = static_cast<int64_t>(elements[i * stride]);
      outside |= (value < low) | (value > high);
    }
  }
  return !outside;
}

template <class Integer>
bool axes_within(
    const char* data, const DLTensor& tensor, int dim, int64_t low, int64_t high) noexcept {
  if (dim == tensor.ndim - 1) {
    return row_within<Integer>(data, tensor.shape[dim], tensor.strides[dim], low, high);
  }
  const int64_t step = tensor.strides[dim] * static_cast<int64_t>(sizeof(Integer));
  for (int64_t i = 0; i < tensor.shape[dim]; ++i) {
    if (!axes_within<Integer>(data + i * step, tensor, dim + 1, low, high)) {
      return false;
    }
  }
  return true;
}

template <class Integer>
bool within(const DLTensor& tensor, int64_t low, int64_t high) noexcept {
  const char* data = static_cast<const char*>(tensor.data) + tensor.byte_offset;
  // The order in which the elements of a dense tensor lie in memory does not matter here.
  if (is_dense(tensor)) {
    return row_within<Integer>(data, count_elements(tensor), 1, low, high);
  }
  return axes_within<Integer>(data, tensor, 0, low, high);
}

}  // namespace

bool all_within(const DLTensor& tensor, int64_t low, int64_t high) noexcept {
  if (count_elements(tensor) == 0) {
    return true;
  }
  const bool is_signed = tensor.dtype.code == kDLInt;
  if (tensor.dtype.lanes != 1 || !(is_signed || tensor.dtype.code == kDLUInt)) {
    return true;
  }
  switch (tensor.dtype.bits) {
    case 64:  // no model indexes with uint64
      return !is_signed || within<int64_t>(tensor, low, high);
    case 32:
      return !is_signed || within<int32_t>(tensor, low, high);
    case 16:
      return !is_signed || within<int16_t>(tensor, low, high);
    case 8:
      return is_signed ? within<int8_t>(tensor, low, high) : within<uint8_t>(tensor, low, high);
    default:
      return true;
  }
}

}  // namespace aoti
