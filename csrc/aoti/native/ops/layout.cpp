#include <aoti/core/tensor.h>
#include <aoti/native/ops/layout.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace aoti::native {

namespace {

// The dimensions of channels_last, innermost first.
std::vector<std::size_t> channels_last_order(std::size_t rank) {
  std::vector<std::size_t> order = {1};
  for (std::size_t dim = rank; --dim > 1;) {
    order.push_back(dim);
  }
  order.push_back(0);
  return order;
}

bool is_channels_last(const Tensor& tensor) {
  if (tensor.rank() != 4) {  // the fast path looks for that of 4 dimensions only
    return false;
  }
  int64_t expected = 1;
  for (const std::size_t dim : channels_last_order(4)) {
    if (tensor.sizes()[dim] != 1) {
      if (tensor.strides()[dim] != expected) {
        return false;
      }
      expected *= tensor.sizes()[dim];
    }
  }
  return true;
}

bool equal(Extents one, Extents other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end());
}

}  // namespace

std::vector<int64_t> broadcast_sizes(std::initializer_list<Extents> sizes) {
  std::vector<int64_t> result;
  for (const Extents given : sizes) {
    if (given.size() > result.size()) {
      result.insert(result.begin(), given.size() - result.size(), 1);
    }
    for (std::size_t back = 1; back <= given.size(); ++back) {
      const int64_t size = given[given.size() - back];
      int64_t& common = result[result.size() - back];
      if (size != common && size != 1 && common != 1) {
        throw std::invalid_argument("the sizes of tensors do not fit");
      }
      common = size == 1 ? common : size;
    }
  }
  return result;
}

std::vector<int64_t> broadcast_sizes(const std::vector<const Tensor*>& tensors) {
  std::vector<int64_t> result;
  for (const Tensor* const tensor : tensors) {
    result = broadcast_sizes({Extents(result), tensor->sizes_list()});
  }
  return result;
}

std::vector<int64_t> result_strides(Extents sizes, const std::vector<const Tensor*>& operands) {
  const auto all = [&](auto&& holds) {
    return std::all_of(
        operands.begin(), operands.end(), [&](const Tensor* operand) { return holds(*operand); });
  };
  const Tensor& last = *operands.back();
  if (all([&](const Tensor& operand) { return equal(operand.sizes_list(), sizes); })) {
    if (all([](const Tensor& operand) { return operand.is_contiguous(); })) {
      return contiguous_strides(sizes);
    }
    if (all(is_channels_last)) {
      return channels_last_strides(sizes);
    }
    if (all([&](const Tensor& operand) {
          return is_dense(operand.view()) && equal(operand.strides_list(), last.strides_list());
        })) {
      return {last.strides(), last.strides() + last.rank()};
    }
  }
  std::vector<std::vector<int64_t>> strides;
  for (const Tensor* const operand : operands) {
    strides.push_back(broadcast_strides(*operand, sizes));
    for (int64_t& stride : strides.back()) {
      stride *= operand->itemsize();
    }
  }
  const std::vector<std::size_t> order = order_of_dims(sizes, {strides.begin(), strides.end()});
  if (std::is_sorted(order.rbegin(), order.rend())) {
    return contiguous_strides(sizes);
  }
  std::vector<int64_t> result(sizes.size());
  int64_t stride = 1;
  for (const std::size_t dim : order) {
    result[dim] = stride;
    stride = checked_product(stride, sizes[dim]);
  }
  return result;
}

bool suggests_channels_last(const Tensor& tensor) noexcept {
  if (tensor.rank() != 4 && tensor.rank() != 5) {
    return false;
  }
  const int64_t* const sizes = tensor.sizes();
  const int64_t* const strides = tensor.strides();
  int64_t least = 0;
  if (strides[1] == 0) {
    return false;
  }
  const auto rank = static_cast<std::size_t>(tensor.rank());
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t dim = i == 0 ? 1 : i + 1 == rank ? 0 : rank - i;
    if (sizes[dim] == 0 || strides[dim] < least || (dim == 0 && least == strides[1])) {
      return false;
    }
    least = strides[dim] * std::max<int64_t>(sizes[dim], 1);
  }
  return true;
}

std::vector<int64_t> channels_last_strides(Extents sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (const std::size_t dim : channels_last_order(sizes.size())) {
    strides[dim] = stride;
    stride = checked_product(stride, sizes[dim]);
  }
  return strides;
}

}  // namespace aoti::native
