// Tensors that are filled, copied, joined, and seen in another way, as ATen's.

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/layout.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <cstring>

namespace aoti::native {

namespace {

Tensor permute(const Tensor& self, Extents dims) {
  const auto rank = static_cast<std::size_t>(self.rank());
  if (dims.size() != rank) {
    throw std::invalid_argument("a permutation of more or fewer dimensions than there are");
  }
  std::vector<int64_t> sizes, strides;
  std::vector<bool> seen(rank, false);
  for (const int64_t given : dims) {
    const auto dim = static_cast<std::size_t>(wrapped_dim(given, self.rank()));
    if (seen[dim]) {
      throw std::invalid_argument("a permutation that names a dimension twice");
    }
    seen[dim] = true;
    sizes.push_back(self.sizes()[dim]);
    strides.push_back(self.strides()[dim]);
  }
  return Tensor(self.storage(), self.dtype(), sizes, strides, self.offset());
}

Tensor view_as_real(const Tensor& self) {
  const ScalarType type = self.dtype() == ScalarType::kComplex64    ? ScalarType::kFloat32
                          : self.dtype() == ScalarType::kComplex128 ? ScalarType::kFloat64
                          : self.dtype() == ScalarType::kComplex32  ? ScalarType::kFloat16
                                                                    : self.dtype();
  if (type == self.dtype()) {
    refuse_dtype(type);
  }
  std::vector<int64_t> sizes(self.sizes(), self.sizes() + self.rank()), strides;
  for (const int64_t stride : self.strides_list()) {
    strides.push_back(2 * stride);
  }
  sizes.push_back(2);
  strides.push_back(1);
  return Tensor(self.storage(), type, sizes, strides, 2 * self.offset());
}

Tensor view_as_complex(const Tensor& self) {
  const ScalarType type = self.dtype() == ScalarType::kFloat32   ? ScalarType::kComplex64
                          : self.dtype() == ScalarType::kFloat64 ? ScalarType::kComplex128
                          : self.dtype() == ScalarType::kFloat16 ? ScalarType::kComplex32
                                                                 : self.dtype();
  if (type == self.dtype()) {
    refuse_dtype(type);
  }
  bool fits = self.rank() != 0 && self.size(-1) == 2 && self.stride(-1) == 1;
  std::vector<int64_t> sizes, strides;
  for (int64_t dim = 0; dim + 1 < self.rank(); ++dim) {
    sizes.push_back(self.sizes()[dim]);
    strides.push_back(self.strides()[dim] / 2);
    fits = fits && (self.strides()[dim] % 2 == 0 || self.sizes()[dim] == 1);
  }
  if (!fits || self.offset() % 2 != 0) {
    throw std::invalid_argument("the numbers of the tensor are no pairs");
  }
  return Tensor(self.storage(), type, sizes, strides, self.offset() / 2);
}

bool is_left_out(const Tensor& tensor) {  // for the sake of old code
  return tensor.rank() == 1 && tensor.numel() == 0;
}

ScalarType common_type(const std::vector<const Tensor*>& tensors) {
  // Tensors without dimensions count less; cat takes none.
  ScalarType type = tensors[0]->dtype();
  for (const Tensor* const tensor : tensors) {
    type = type == tensor->dtype() ? type : promoted(type, tensor->dtype());
  }
  return type;
}

Tensor cat(const std::vector<const Tensor*>& tensors, int64_t given) {
  const auto first = std::find_if(
      tensors.begin(), tensors.end(), [](const Tensor* one) { return !is_left_out(*one); });
  if (tensors.empty()) {
    throw std::invalid_argument("there are no tensors to join");
  }
  const ScalarType type = common_type(tensors);
  if (first == tensors.end()) {
    return Tensor::empty(type, tensors[0]->sizes_list());
  }
  std::vector<int64_t> sizes((*first)->sizes(), (*first)->sizes() + (*first)->rank());
  const int64_t dim = wrapped_dim(given, (*first)->rank());
  const auto at = static_cast<std::size_t>(dim);
  if (sizes.empty()) {
    throw std::invalid_argument("tensors without dimensions cannot be joined");
  }
  sizes[at] = 0;
  for (const Tensor* const tensor : tensors) {
    if (is_left_out(*tensor)) {
      continue;
    }
    bool fits = tensor->rank() == static_cast<int64_t>(sizes.size());
    for (std::size_t i = 0; fits && i < sizes.size(); ++i) {
      fits = i == at || tensor->sizes()[i] == sizes[i];
    }
    if (!fits || __builtin_add_overflow(sizes[at], tensor->sizes()[at], &sizes[at])) {
      throw std::invalid_argument("the sizes of tensors that are joined do not fit");
    }
  }
  const bool last = std::all_of(tensors.begin(), tensors.end(), [&](const Tensor* tensor) {
    return tensor->rank() == (*first)->rank() && suggests_channels_last(*tensor);
  });
  Tensor made =
      last ? Tensor::empty(type, sizes, channels_last_strides(sizes)) : Tensor::empty(type, sizes);
  int64_t offset = 0;
  for (const Tensor* const tensor : tensors) {
    if (!is_left_out(*tensor) && tensor->numel() != 0) {
      const Tensor part(made.storage(), type, tensor->sizes_list(), made.strides_list(), offset);
      convert(part, *tensor);
      offset += tensor->sizes()[at] * made.stride(dim);
    }
  }
  return made;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t
aotinative_cpu_permute(Handle self, const int64_t* dims, int64_t count, Handle* made) {
  return served("permute", [&] { hand_over(permute(*self, extents(dims, count)), made); });
}

AOTI_SERVED int32_t aotinative_cpu_view_as_real(Handle self, Handle* made) {
  return served("view_as_real", [&] { hand_over(view_as_real(*self), made); });
}

AOTI_SERVED int32_t aotinative_cpu_view_as_complex(Handle self, Handle* made) {
  return served("view_as_complex", [&] { hand_over(view_as_complex(*self), made); });
}

AOTI_SERVED int32_t
aotinative_cpu_cat(const Handle* tensors, int64_t count, int64_t dim, Handle* made) {
  return served("cat", [&] {
    hand_over(cat(std::vector<const Tensor*>(tensors, tensors + count), dim), made);
  });
}

AOTI_SERVED int32_t aotinative_copy_(Handle self, Handle source, int32_t) {
  return served("copy_", [&] { convert(*self, *source); });
}

AOTI_SERVED int32_t aotinative_tensor_copy_(Handle source, Handle self) {
  return served("copy_", [&] { convert(*self, *source); });
}

AOTI_SERVED int32_t aotinative_zero_(Handle self) {
  return served("zero_", [&] {
    const Tensor zero = Tensor::empty(self->dtype(), {});
    std::memset(zero.data(), 0, static_cast<std::size_t>(zero.itemsize()));
    copy(*self, zero);
  });
}

AOTI_SERVED int32_t aotinative_cpu_fill__Scalar(Handle self, double value) {
  return served("fill_", [&] { fill(*self, value); });
}
