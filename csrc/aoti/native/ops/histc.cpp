// How many elements fall into each of some bins, as ATen's histc
// (aten/src/ATen/native/cpu/HistogramKernel.cpp).

#include <aoti/native/ops/elements.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <cmath>

namespace aoti::native {

namespace {

template <class Element, class Body>
void for_elements(const Tensor& tensor, const Body& body) {
  const std::array<const int64_t*, 1> strides = {tensor.strides()};
  for_rows<1>(tensor.sizes_list(), strides, [&](auto offsets, int64_t count, auto steps) {
    const auto* const row = tensor.as<const Element>() + offsets[0];
    for (int64_t i = 0; i < count; ++i) {
      body(static_cast<Computed<Element>>(row[i * steps[0]]));
    }
  });
}

template <class Element>
void count(const Tensor& self, const Tensor& bins, double least, double most) {
  using Number = Computed<Element>;
  // ATen rounds each step to the dtype.
  const auto rounded = [](Number value) {
    return static_cast<Number>(static_cast<Element>(value));
  };
  Number low = rounded(static_cast<Number>(least)), high = rounded(static_cast<Number>(most));
  if (low == high && self.numel() != 0) {
    bool first = true;
    for_elements<Element>(self, [&](Number value) {
      low = first || value < low || value != value ? value : low;
      high = first || value > high || value != value ? value : high;
      first = false;
    });
  }
  if (low == high) {
    low = rounded(low - 1);
    high = rounded(high + 1);
  }
  if (!std::isfinite(low) || !std::isfinite(high) || low > high) {
    throw std::invalid_argument("the range of a histogram is not one of numbers");
  }
  const int64_t size = bins.numel();
  std::vector<int64_t> counts(static_cast<std::size_t>(size), 0);
  const auto scale = static_cast<Number>(size);
  const Number width = rounded(high - low);
  for_elements<Element>(self, [&](Number value) {
    if (value >= low && value <= high) {
      const auto at = static_cast<int64_t>(rounded(rounded(rounded(value - low) * scale) / width));
      ++counts[static_cast<std::size_t>(std::clamp<int64_t>(at, 0, size - 1))];
    }
  });
  auto* const to = bins.as<Element>();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    to[i] = static_cast<Element>(static_cast<Number>(counts[i]));
  }
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the function below is of no namespace

AOTI_SERVED int32_t
aotinative_cpu_histc(Handle self, int64_t bins, double least, double most, Handle* made) {
  return served("histc", [&] {
    if (bins < 1) {
      throw std::invalid_argument("a histogram has at least one bin");
    }
    Tensor counts = Tensor::empty(self->dtype(), extents(&bins, 1));
    with_floating(
        self->dtype(), [&]<class Element>(Element) { count<Element>(*self, counts, least, most); });
    hand_over(std::move(counts), made);
  });
}
