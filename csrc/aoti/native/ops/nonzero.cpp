// What is not 0, as ATen's nonzero and masked_select
// (aten/src/ATen/native/TensorAdvancedIndexing.cpp).

#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/layout.h>
#include <aoti/native/ops/nonzero.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

namespace aoti::native {

namespace {

// The indices, in C order, of the elements that are not 0.
std::vector<int64_t> linear_positions(const Tensor& tensor) {
  std::vector<int64_t> found;
  with_element(tensor.dtype(), [&]<class Element>(Element) {
    int64_t before = 0;
    const std::array<const int64_t*, 1> strides = {tensor.strides()};
    for_rows<1>(tensor.sizes_list(), strides, [&](auto offsets, int64_t count, auto steps) {
      const auto* const row = tensor.as<const Element>() + offsets[0];
      for (int64_t i = 0; i < count; ++i) {
        if (static_cast<Computed<Element>>(row[i * steps[0]]) != Computed<Element>{}) {
          found.push_back(before + i);
        }
      }
      before += count;
    });
  });
  return found;
}

Tensor masked_select(const Tensor& self, const Tensor& mask) {
  if (mask.dtype() != ScalarType::kBool) {
    throw std::invalid_argument("the mask is not of bool");
  }
  const std::vector<int64_t> sizes = broadcast_sizes({self.sizes_list(), mask.sizes_list()});
  const std::vector<int64_t> from = broadcast_strides(self, sizes);
  const std::vector<int64_t> chosen = broadcast_strides(mask, sizes);
  const std::array<const int64_t*, 2> strides = {from.data(), chosen.data()};
  Tensor made;
  with_itemsize(self.itemsize(), [&]<class Element>(Element) {
    std::vector<Element> found;
    for_rows<2>(sizes, strides, [&](auto offsets, int64_t count, auto steps) {
      const auto* const row = self.as<const Element>() + offsets[0];
      const auto* const takes = mask.as<const bool>() + offsets[1];
      for (int64_t i = 0; i < count; ++i) {
        if (takes[i * steps[1]]) {
          found.push_back(row[i * steps[0]]);
        }
      }
    });
    const auto count = static_cast<int64_t>(found.size());
    made = Tensor::empty(self.dtype(), extents(&count, 1));
    std::copy(found.begin(), found.end(), made.as<Element>());
  });
  return made;
}

}  // namespace

Tensor nonzero(const Tensor& tensor) {
  const std::vector<int64_t> found = linear_positions(tensor);
  const auto count = static_cast<int64_t>(found.size());
  const int64_t sizes[] = {count, tensor.rank()}, strides[] = {1, count};
  Tensor made = Tensor::empty(ScalarType::kInt64, sizes, strides);
  int64_t inner = 1;
  for (int64_t dim = tensor.rank(); dim-- > 0;) {
    auto* const column = made.as<int64_t>() + dim * count;
    const int64_t size = tensor.sizes()[dim];
    for (std::size_t i = 0; i < found.size(); ++i) {
      column[i] = found[i] / inner % size;
    }
    inner *= size;
  }
  return made;
}

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t aotinative_cpu_nonzero(Handle self, Handle* made) {
  return served("nonzero", [&] { hand_over(nonzero(*self), made); });
}

AOTI_SERVED int32_t aotinative_cpu_masked_select(Handle self, Handle mask, Handle* made) {
  return served("masked_select", [&] { hand_over(masked_select(*self, *mask), made); });
}
