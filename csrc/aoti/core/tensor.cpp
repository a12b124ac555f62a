#include <aoti/core/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

namespace aoti {

namespace {

constexpr std::align_val_t kAlignment{64};

// The bytes from the first to the last element of a tensor whose strides are not negative.
std::size_t extent_of(const DLTensor& view) {
  if (std::find(view.shape, view.shape + view.ndim, 0) != view.shape + view.ndim) {
    return 0;
  }
  std::size_t extent = 1;
  for (int i = 0; i < view.ndim; ++i) {
    std::size_t step = 0;
    if (__builtin_mul_overflow(view.shape[i] - 1, view.strides[i], &step) ||
        __builtin_add_overflow(extent, step, &extent)) {
      throw std::bad_alloc();
    }
  }
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(extent, itemsize_of(view.dtype), &bytes) ||
      bytes > static_cast<std::size_t>(std::numeric_limits<int64_t>::max())) {
    throw std::bad_alloc();
  }
  return bytes;
}

struct AxisPair {
  int64_t size;
  int64_t to;
  int64_t from;
};

template <class Element>
void copy_row(char* to, const char* from, const AxisPair& axis) noexcept {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Element));
  for (int64_t i = 0; i < axis.size; ++i) {
    // memcpy: an array of an old library may be aligned to less than its elements.
    std::memcpy(to + i * axis.to * kBytes, from + i * axis.from * kBytes, sizeof(Element));
  }
}

struct Element16 {
  uint64_t words[2];
};

void copy_row(char* to, const char* from, const AxisPair& axis, int64_t itemsize) noexcept {
  if (axis.to == 1 && axis.from == 1) {
    std::memmove(to, from, static_cast<std::size_t>(axis.size * itemsize));
    return;
  }
  switch (itemsize) {
    case 1:
      return copy_row<uint8_t>(to, from, axis);
    case 2:
      return copy_row<uint16_t>(to, from, axis);
    case 4:
      return copy_row<uint32_t>(to, from, axis);
    case 8:
      return copy_row<uint64_t>(to, from, axis);
    case 16:
      return copy_row<Element16>(to, from, axis);
    default:
      for (int64_t i = 0; i < axis.size; ++i) {
        std::memcpy(
            to + i * axis.to * itemsize,
            from + i * axis.from * itemsize,
            static_cast<std::size_t>(itemsize));
      }
  }
}

// A transposition: the source steps through memory along `outer`, the target along `inner`. In
// tiles, so that both find their cache lines again.
void copy_transposed(
    char* to,
    const char* from,
    const AxisPair& outer,
    const AxisPair& inner,
    int64_t itemsize) noexcept {
  constexpr int64_t kTile = 32;
  for (int64_t i = 0; i < outer.size; i += kTile) {
    for (int64_t j = 0; j < inner.size; j += kTile) {
      const AxisPair part{std::min(kTile, inner.size - j), inner.to, inner.from};
      for (int64_t k = i; k < std::min(i + kTile, outer.size); ++k) {
        copy_row(
            to + (k * outer.to + j * inner.to) * itemsize,
            from + (k * outer.from + j * inner.from) * itemsize,
            part,
            itemsize);
      }
    }
  }
}

void copy_axes(
    char* to, const char* from, const AxisPair* axes, int count, int64_t itemsize) noexcept {
  if (count == 1) {
    copy_row(to, from, axes[0], itemsize);
    return;
  }
  if (count == 2 && axes[0].from == 1) {
    copy_transposed(to, from, axes[0], axes[1], itemsize);
    return;
  }
  for (int64_t i = 0; i < axes[0].size; ++i) {
    copy_axes(
        to + i * axes[0].to * itemsize,
        from + i * axes[0].from * itemsize,
        axes + 1,
        count - 1,
        itemsize);
  }
}

}  // namespace

Tensor::Block* Tensor::make(const DLTensor& view, std::size_t room) {
  void* memory = std::malloc(sizeof(Block) + room * sizeof(int64_t));
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  auto* block = new (memory) Block;
  block->view = view;
  return block;
}

void Tensor::destroy(Block* block) noexcept {
  if (block->release != nullptr) {
    block->release(block->owner);
  }
  std::destroy_at(block);
  std::free(block);
}

Tensor Tensor::over(const DLTensor& view, void* owner, Release release) {
  const auto rank = static_cast<std::size_t>(view.ndim);
  Block* block = make(view, 2 * rank);
  auto* numbers = reinterpret_cast<int64_t*>(block + 1);
  std::copy_n(view.shape, rank, numbers);
  std::copy_n(view.strides, rank, numbers + rank);
  block->view.shape = numbers;
  block->view.strides = numbers + rank;
  block->owner = owner;
  block->release = release;
  return Tensor(block);
}

Tensor Tensor::owned(const DLTensor& view, void* owner, Release release) {
  Block* block = make(view, 0);
  block->owner = owner;
  block->release = release;
  return Tensor(block);
}

Tensor Tensor::allocate(DType dtype, int rank, const int64_t* sizes, const int64_t* strides) {
  int64_t c_order[kMaxRank];
  if (strides == nullptr) {
    fill_c_order(rank, sizes, c_order);
    strides = c_order;
  }
  DLTensor view{};
  view.device = kCpu;
  view.ndim = rank;
  view.dtype = dl_type_of(dtype);
  view.shape = const_cast<int64_t*>(sizes);
  view.strides = const_cast<int64_t*>(strides);
  Tensor tensor = over(view, nullptr, nullptr);
  const std::size_t bytes = extent_of(view);
  if (bytes != 0) {
    void* memory = ::operator new(bytes, kAlignment);
    tensor.block_->view.data = memory;
    tensor.block_->owner = memory;
    tensor.block_->release = [](void* owned) { ::operator delete(owned, kAlignment); };
  }
  return tensor;
}

bool is_contiguous(const DLTensor& view) noexcept {
  int64_t step = 1;
  for (int i = view.ndim; i-- > 0;) {
    if (view.shape[i] != 1 && view.strides[i] != step) {
      return count_elements(view) == 0;
    }
    step = wrapping_product(step, view.shape[i]);
  }
  return true;
}

bool is_dense(const DLTensor& view) noexcept {
  if (is_contiguous(view)) {
    return true;
  }
  int dims[kMaxRank];
  int count = 0;
  for (int i = 0; i < view.ndim; ++i) {
    if (view.shape[i] != 1) {
      dims[count++] = i;
    }
  }
  std::sort(dims, dims + count, [&](int a, int b) { return view.strides[a] < view.strides[b]; });
  int64_t step = 1;
  for (int i = 0; i < count; ++i) {
    if (view.strides[dims[i]] != step) {
      return false;
    }
    step = wrapping_product(step, view.shape[dims[i]]);
  }
  return true;
}

void copy_elements(const DLTensor& to, const DLTensor& from) noexcept {
  // Axes from the outermost inwards, by the strides of the target; neighbours that step alike in
  // both are joined.
  AxisPair axes[kMaxRank];
  int count = 0;
  for (int i = 0; i < to.ndim; ++i) {
    if (to.shape[i] == 0) {
      return;
    }
    if (to.shape[i] != 1) {
      axes[count++] = {to.shape[i], to.strides[i], from.strides[i]};
    }
  }
  std::stable_sort(
      axes, axes + count, [](const AxisPair& a, const AxisPair& b) { return a.to > b.to; });
  int joined = 0;
  for (int i = 0; i < count; ++i) {
    if (joined > 0) {
      AxisPair& outer = axes[joined - 1];
      if (outer.to == axes[i].size * axes[i].to && outer.from == axes[i].size * axes[i].from) {
        outer = {outer.size * axes[i].size, axes[i].to, axes[i].from};
        continue;
      }
    }
    axes[joined++] = axes[i];
  }
  if (joined == 0) {
    axes[joined++] = {1, 1, 1};
  }
  // The axis along which the source steps through memory comes next to the innermost.
  AxisPair* const last = axes + joined - 1;
  AxisPair* const unit =
      std::find_if(axes, last, [](const AxisPair& axis) { return axis.from == 1; });
  std::rotate(unit, std::min(unit + 1, last), last);
  copy_axes(
      static_cast<char*>(to.data) + to.byte_offset,
      static_cast<const char*>(from.data) + from.byte_offset,
      axes,
      joined,
      itemsize_of(to.dtype));
}

Status copy_strided(
    const DLTensor& from, const std::vector<int64_t>& strides, Tensor& copy) noexcept {
  return catch_all([&]() -> Status {
    Tensor made = Tensor::allocate(dtype_of(from.dtype), from.ndim, from.shape, strides.data());
    copy_elements(made.view(), from);
    copy = std::move(made);
    return {};
  });
}

Status clone(const DLTensor& from, Tensor& copy) noexcept {
  return catch_all([&]() -> Status {
    Tensor made = Tensor::allocate(dtype_of(from.dtype), from.ndim, from.shape, nullptr);
    copy_elements(made.view(), from);
    copy = std::move(made);
    return {};
  });
}

Status clone_preserving(const DLTensor& from, Tensor& copy) noexcept {
  if (!is_dense(from)) {
    return clone(from, copy);
  }
  return catch_all([&]() -> Status {
    Tensor made = Tensor::allocate(dtype_of(from.dtype), from.ndim, from.shape, from.strides);
    copy_elements(made.view(), from);
    copy = std::move(made);
    return {};
  });
}

}  // namespace aoti
