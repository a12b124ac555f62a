#pragma once

// Sizes and strides of results, as ATen's TensorIterator gives them
// (aten/src/ATen/TensorIterator.cpp). Compiled code knows them beforehand.

#include <aoti/native/shim/tensor.h>

#include <initializer_list>
#include <vector>

namespace aoti::native {

// The sizes that tensors are broadcast to. Throws std::invalid_argument if they do not fit.
std::vector<int64_t> broadcast_sizes(std::initializer_list<Extents> sizes);
std::vector<int64_t> broadcast_sizes(const std::vector<const Tensor*>& tensors);

// The strides of the result of an elementwise operator. `sizes` are those that the operands are
// broadcast to.
std::vector<int64_t> result_strides(Extents sizes, const std::vector<const Tensor*>& operands);

// Whether strides are channels_last of 4 or 5 dimensions, and not ambiguous: what ATen's
// suggest_memory_format finds.
bool suggests_channels_last(const Tensor& tensor) noexcept;
std::vector<int64_t> channels_last_strides(Extents sizes);

}  // namespace aoti::native
