#pragma once

// Values of inputs that index tables. A kernel that meets one out of range inside an OpenMP region
// aborts the process, so they are looked at before it runs.

#include <aoti/tensor.h>

#include <ATen/Tensor.h>

#include <cstdint>
#include <vector>

namespace aoti {

namespace detail {

template <class Integer>
bool all_within(const at::Tensor& tensor, int64_t low, int64_t high) {
  // Elements in the order they lie in memory: for a dense tensor, which order that is does not
  // matter.
  const Integer* data = static_cast<const Integer*>(tensor.const_data_ptr());
  const int64_t count = tensor.numel();
  bool outside = false;
  for (int64_t i = 0; i < count; ++i) {  // without a branch, which makes it vectorise
    const auto value = static_cast<int64_t>(data[i]);
    outside |= (value < low) | (value > high);
  }
  return !outside;
}

inline bool all_within(const at::Tensor& tensor, int64_t low, int64_t high) {
  if (!tensor.is_non_overlapping_and_dense()) {
    return all_within(tensor.contiguous(), low, high);
  }
  switch (tensor.scalar_type()) {
    case c10::ScalarType::Long:
      return all_within<int64_t>(tensor, low, high);
    case c10::ScalarType::Int:
      return all_within<int32_t>(tensor, low, high);
    case c10::ScalarType::Short:
      return all_within<int16_t>(tensor, low, high);
    case c10::ScalarType::Char:
      return all_within<int8_t>(tensor, low, high);
    case c10::ScalarType::Byte:
      return all_within<uint8_t>(tensor, low, high);
    default:
      return true;  // no other dtype indexes tables
  }
}

}  // namespace detail

// The first input with a value out of its range; -1 if there is none. `symbols` is what `check`
// bound.
inline Failure find_out_of_range(
    const std::vector<InputSpec>& specs,
    const std::vector<at::Tensor>& inputs,
    const int64_t* symbols,
    int64_t& index) noexcept {
  index = -1;
  return guarded([&]() -> Failure {
    for (std::size_t i = 0; i < specs.size(); ++i) {
      // Those that lie on a device could only be looked at by waiting for it.
      if (specs[i].bounded && inputs[i].is_cpu() &&
          !detail::all_within(
              inputs[i],
              detail::value(specs[i].low, symbols),
              detail::value(specs[i].high, symbols))) {
        index = static_cast<int64_t>(i);
        break;
      }
    }
    return {};
  });
}

}  // namespace aoti
