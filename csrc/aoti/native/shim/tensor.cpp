#include <aoti/core/dtype.h>
#include <aoti/core/tensor.h>
#include <aoti/native/shim/tensor.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace aoti::native {

int64_t checked_product(int64_t one, int64_t other) {
  int64_t result = 0;
  if (__builtin_mul_overflow(one, other, &result)) {
    throw std::invalid_argument("a tensor has more elements than an int64 can count");
  }
  return result;
}

namespace {

// How many elements lie between the first one and the end of the last one.
int64_t reach(Extents sizes, Extents strides) {
  int64_t last = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) {
      return 0;
    }
    if (__builtin_add_overflow(last, checked_product(sizes[i] - 1, strides[i]), &last)) {
      throw std::invalid_argument("a tensor reaches further than an int64 can count");
    }
  }
  return last + 1;
}

}  // namespace

Tensor::Tensor(Storage storage, ScalarType dtype, Extents sizes, Extents strides, int64_t offset)
    : storage_(std::move(storage)),
      offset_(offset),
      itemsize_(native::itemsize_of(dtype)),
      dtype_(dtype) {
  set_extents(sizes, strides);
  const int64_t end = numel_ == 0 ? 0 : offset + reach(sizes, strides);
  if (offset < 0 || checked_product(end, itemsize_) > static_cast<int64_t>(storage_.bytes())) {
    throw std::invalid_argument("a view reaches beyond its memory");
  }
  if (storage_.data() != nullptr) {
    data_ = static_cast<char*>(storage_.data()) + offset * itemsize_;
  }
}

Tensor::Tensor(const Tensor& other)
    : storage_(other.storage_),
      data_(other.data_),
      offset_(other.offset_),
      itemsize_(other.itemsize_),
      dtype_(other.dtype_) {
  set_extents(other.sizes_list(), other.strides_list());
}

Tensor Tensor::empty(ScalarType dtype, Extents sizes, Extents strides) {
  const int64_t bytes = checked_product(reach(sizes, strides), native::itemsize_of(dtype));
  return Tensor(
      Storage::allocate(static_cast<std::size_t>(std::max<int64_t>(bytes, 0))),
      dtype,
      sizes,
      strides,
      0);
}

Tensor Tensor::empty(ScalarType dtype, Extents sizes) {
  return empty(dtype, sizes, contiguous_strides(sizes));
}

Tensor Tensor::over(
    void* data,
    ScalarType dtype,
    Extents sizes,
    Extents strides,
    int64_t offset,
    void* owner,
    void (*release)(void*)) {
  Storage storage = Storage::over(data, owner, release);
  const int64_t elements = reach(sizes, strides);
  const int64_t bytes =
      checked_product(elements == 0 ? 0 : offset + elements, native::itemsize_of(dtype));
  storage.set_bytes(static_cast<std::size_t>(std::max<int64_t>(bytes, 0)));
  return Tensor(std::move(storage), dtype, sizes, strides, offset);
}

void Tensor::set_extents(Extents sizes, Extents strides) {
  if (sizes.size() > kMaxRank) {
    throw std::invalid_argument("a tensor has more than 64 dimensions");
  }
  rank_ = static_cast<int64_t>(sizes.size());
  if (rank_ > kInline) {
    further_ = std::make_unique<int64_t[]>(2 * sizes.size());
  }
  std::copy(sizes.begin(), sizes.end(), this->sizes());
  std::copy(strides.begin(), strides.end(), this->strides());
  numel_ = 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] < 0 || strides[i] < 0) {
      throw std::invalid_argument("a tensor has a negative size or stride");
    }
    numel_ = checked_product(numel_, sizes[i]);
  }
}

int64_t Tensor::size(int64_t dim) const {
  const int64_t index = dim < 0 ? dim + rank_ : dim;
  if (index < 0 || index >= rank_) {
    throw std::out_of_range(
        "a tensor of " + std::to_string(rank_) + " dimensions has no dimension " +
        std::to_string(dim));
  }
  return sizes()[index];
}

int64_t Tensor::stride(int64_t dim) const {
  static_cast<void>(size(dim));
  return strides()[dim < 0 ? dim + rank_ : dim];
}

bool Tensor::is_contiguous() const noexcept { return aoti::is_contiguous(view()); }

DLTensor Tensor::view() const noexcept {
  DLTensor described{};
  described.data = data_;
  described.device = {kDLCPU, 0};
  described.ndim = static_cast<int32_t>(rank_);
  described.dtype = dl_type_of(dtype_);
  described.shape = sizes();
  described.strides = strides();
  return described;
}

std::vector<int64_t> contiguous_strides(Extents sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride = checked_product(stride, std::max<int64_t>(sizes[i], 1));
  }
  return strides;
}

std::vector<std::size_t> order_of_dims(Extents sizes, const std::vector<Extents>& strides) {
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.rbegin(), order.rend(), std::size_t{0});
  // Positive if `one`, which comes first, belongs further outside than `other`.
  const auto compare = [&](std::size_t one, std::size_t other) {
    for (const Extents steps : strides) {
      if (steps[one] == 0 || steps[other] == 0) {
        continue;
      }
      if (steps[one] != steps[other]) {
        return steps[one] < steps[other] ? -1 : 1;
      }
      if (sizes[one] > sizes[other]) {
        return 1;
      }
    }
    return 0;
  };
  for (std::size_t i = 1; i < order.size(); ++i) {
    std::size_t moving = i;
    for (std::size_t j = i; j-- > 0;) {
      const int compared = compare(order[j], order[moving]);
      if (compared > 0) {
        std::swap(order[j], order[moving]);
        moving = j;
      } else if (compared < 0) {
        break;
      }
    }
  }
  return order;
}

std::vector<int64_t> dense_strides(Extents sizes, Extents strides) {
  std::vector<int64_t> dense(sizes.size());
  int64_t stride = 1;
  for (const std::size_t dim : order_of_dims(sizes, {strides})) {
    dense[dim] = stride;
    if (sizes[dim] > 1) {
      stride = checked_product(stride, sizes[dim]);
    }
  }
  return dense;
}

std::vector<int64_t> preserved_strides(const Tensor& tensor) {
  const Extents sizes = tensor.sizes_list(), strides = tensor.strides_list();
  return is_dense(tensor.view()) ? std::vector<int64_t>(strides.begin(), strides.end())
                                 : dense_strides(sizes, strides);
}

Tensor empty_like(const Tensor& tensor) {
  return Tensor::empty(tensor.dtype(), tensor.sizes_list(), preserved_strides(tensor));
}

Tensor clone(const Tensor& tensor) {
  Tensor made = empty_like(tensor);
  if (tensor.numel() != 0) {
    copy_elements(made.view(), tensor.view());
  }
  return made;
}

std::vector<int64_t> broadcast_strides(const Tensor& tensor, Extents wanted) {
  const auto rank = static_cast<std::size_t>(tensor.rank());
  std::vector<int64_t> strides(wanted.size(), 0);
  bool fits = rank <= wanted.size();
  for (std::size_t i = 0; fits && i < rank; ++i) {
    const std::size_t to = wanted.size() - rank + i;
    const int64_t size = tensor.sizes()[i];
    fits = size == wanted[to] || size == 1;
    strides[to] = size == 1 && wanted[to] != 1 ? 0 : tensor.strides()[i];
  }
  if (!fits) {
    throw std::invalid_argument("a tensor cannot be broadcast to the sizes that are wanted");
  }
  return strides;
}

void copy(const Tensor& to, const Tensor& from) {
  if (to.dtype() != from.dtype()) {
    throw std::invalid_argument("a copy between tensors of different dtypes");
  }
  std::vector<int64_t> strides = broadcast_strides(from, to.sizes_list());
  if (to.numel() == 0) {
    return;
  }
  DLTensor view = to.view();
  view.data = from.data();
  view.strides = strides.data();
  copy_elements(to.view(), view);
}

}  // namespace aoti::native
