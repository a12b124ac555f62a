// Parts of a tensor, and a tensor with other sizes or of another type over the same memory, as
// ATen's (aten/src/ATen/native/TensorShape.cpp, TensorConversions.cpp).

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <limits>
#include <optional>

namespace aoti::native {

namespace {

using Numbers = std::vector<int64_t>;

Numbers sizes_of(const Tensor& self) { return {self.sizes(), self.sizes() + self.rank()}; }

Numbers strides_of(const Tensor& self) { return {self.strides(), self.strides() + self.rank()}; }

Tensor view(const Tensor& self, Extents sizes, Extents strides) {
  return Tensor(self.storage(), self.dtype(), sizes, strides, self.offset());
}

// Sizes, of which one may be -1: as many as are left.
Numbers inferred(Extents given, int64_t numel) {
  Numbers sizes(given.begin(), given.end());
  int64_t known = 1;
  const auto open = std::find(sizes.begin(), sizes.end(), -1);
  for (auto size = sizes.begin(); size != sizes.end(); ++size) {
    if (size != open) {
      if (*size < 0) {
        throw std::invalid_argument("a reshape to a negative size");
      }
      known = checked_product(known, *size);
    }
  }
  if (open != sizes.end() && known != 0 && numel % known == 0) {
    *open = numel / known;
  } else if (open != sizes.end() || known != numel) {
    throw std::invalid_argument("a reshape to another number of elements");
  }
  return sizes;
}

// Strides with which the memory of a tensor has other sizes; none if it must be copied.
std::optional<Numbers> strides_for(const Tensor& self, Extents sizes) {
  if (self.rank() == 0) {
    return Numbers(sizes.size(), 1);
  }
  if (self.numel() == 0) {
    const bool same =
        std::equal(sizes.begin(), sizes.end(), self.sizes(), self.sizes() + self.rank());
    return same ? strides_of(self) : contiguous_strides(sizes);
  }
  Numbers strides(sizes.size());
  auto at = static_cast<int64_t>(sizes.size()) - 1;
  int64_t step = self.stride(-1), elements = 1, covered = 1;
  // Dimensions that lie as one in memory are a chunk, which has to end where new dimensions do.
  for (int64_t dim = self.rank() - 1; dim >= 0; --dim) {
    elements *= self.sizes()[dim];
    if (dim != 0 && (self.sizes()[dim - 1] == 1 || self.strides()[dim - 1] == elements * step)) {
      continue;
    }
    for (; at >= 0 && (covered < elements || sizes[static_cast<std::size_t>(at)] == 1); --at) {
      strides[static_cast<std::size_t>(at)] = covered * step;
      covered *= sizes[static_cast<std::size_t>(at)];
    }
    if (covered != elements) {
      return std::nullopt;
    }
    if (dim != 0) {
      step = self.strides()[dim - 1];
      elements = covered = 1;
    }
  }
  return at == -1 ? std::optional(strides) : std::nullopt;
}

Tensor reshape(const Tensor& self, Extents given) {
  const Numbers sizes = inferred(given, self.numel());
  if (const std::optional<Numbers> strides = strides_for(self, sizes)) {
    return view(self, sizes, *strides);
  }
  const Tensor whole = Tensor::empty(self.dtype(), self.sizes_list());
  convert(whole, self);
  return view(whole, sizes, contiguous_strides(sizes));
}

// The elements `start`, `start + step` and so on before `end`; negative numbers count from the end.
Tensor slice(const Tensor& self, int64_t given, int64_t start, int64_t end, int64_t step) {
  if (self.rank() == 0 || step <= 0) {
    throw std::invalid_argument("a slice of no dimension, or backwards");
  }
  const auto dim = static_cast<std::size_t>(wrapped_dim(given, self.rank()));
  Numbers sizes = sizes_of(self), strides = strides_of(self);
  const int64_t size = sizes[dim];
  start = std::clamp<int64_t>(start < 0 ? start + size : start, 0, size);
  end = std::clamp<int64_t>(end < 0 ? end + size : end, start, size);
  const int64_t offset = self.offset() + start * strides[dim];
  sizes[dim] = (end - start) / step + ((end - start) % step != 0 ? 1 : 0);
  strides[dim] = checked_product(strides[dim], step);
  return Tensor(self.storage(), self.dtype(), sizes, strides, offset);
}

Tensor squeeze(const Tensor& self, int64_t given) {
  Numbers sizes = sizes_of(self), strides = strides_of(self);
  const int64_t dim = wrapped_dim(given, self.rank());
  if (self.rank() != 0 && sizes[static_cast<std::size_t>(dim)] == 1) {
    sizes.erase(sizes.begin() + dim);
    strides.erase(strides.begin() + dim);
  }
  return view(self, sizes, strides);
}

Tensor view_as(const Tensor& self, ScalarType dtype) {
  const int64_t from = self.itemsize(), to = itemsize_of(dtype);
  Numbers sizes = sizes_of(self), strides = strides_of(self);
  int64_t offset = self.offset();
  if (from != to) {
    if (sizes.empty() || strides.back() != 1) {
      throw std::invalid_argument(
          "elements that do not lie side by side, as those of another size");
    }
    bool fits = true;
    const auto scaled = [&](int64_t value) {
      fits = fits && value * from % to == 0;
      return value * from / to;
    };
    sizes.back() = scaled(sizes.back());
    offset = scaled(offset);
    std::transform(strides.begin(), strides.end() - 1, strides.begin(), scaled);
    if (!fits) {
      throw std::invalid_argument("elements that do not fill those of another size");
    }
  }
  return Tensor(self.storage(), dtype, sizes, strides, offset);
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t
aotinative_cpu_reshape(Handle self, const int64_t* shape, int64_t count, Handle* made) {
  return served("reshape", [&] { hand_over(reshape(*self, extents(shape, count)), made); });
}

AOTI_SERVED int32_t aotinative_cpu_slice_Tensor(
    Handle self,
    int64_t dim,
    const int64_t* start,
    const int64_t* end,
    int64_t step,
    Handle* made) {
  return served("slice", [&] {
    const int64_t last = end ? *end : std::numeric_limits<int64_t>::max();
    hand_over(slice(*self, dim, start ? *start : 0, last, step), made);
  });
}

AOTI_SERVED int32_t aotinative_cpu_squeeze_dim(Handle self, int64_t dim, Handle* made) {
  return served("squeeze", [&] { hand_over(squeeze(*self, dim), made); });
}

AOTI_SERVED int32_t aotinative_cpu_view_dtype(Handle self, int32_t dtype, Handle* made) {
  return served("view", [&] { hand_over(view_as(*self, static_cast<ScalarType>(dtype)), made); });
}
