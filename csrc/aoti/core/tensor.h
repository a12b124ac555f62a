#pragma once

// A tensor: a DLTensor and what keeps its memory alive. Copies of a Tensor share both, and the last
// one gives the memory back, from whichever thread, with the GIL or without.

#include <aoti/core/array_view.h>
#include <aoti/core/status.h>

#include <dlpack/dlpack.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace aoti {

// Gives back what keeps memory alive. Called once, from any thread; must not throw.
using Release = void (*)(void* owner);

class Tensor {
 public:
  Tensor() = default;
  Tensor(const Tensor& other) noexcept : block_(other.block_) {
    if (block_ != nullptr) {
      block_->users.fetch_add(1, std::memory_order_relaxed);
    }
  }
  Tensor(Tensor&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Tensor& operator=(Tensor other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Tensor() { reset(); }

  // A tensor over memory that `owner` keeps alive; a null `release` if nobody has to. The sizes and
  // strides are copied. Throws std::bad_alloc, and then has not taken the owner.
  static Tensor over(const DLTensor& view, void* owner, Release release);

  // The same where `owner` also keeps the sizes and strides alive.
  static Tensor owned(const DLTensor& view, void* owner, Release release);

  // A tensor in new memory, aligned to 64 bytes. Strides that are null mean C order.
  static Tensor allocate(DType dtype, int rank, const int64_t* sizes, const int64_t* strides);

  bool defined() const noexcept { return block_ != nullptr; }
  void reset() noexcept {
    Block* block = std::exchange(block_, nullptr);
    if (block != nullptr && block->users.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      destroy(block);
    }
  }

  // The rest wants a tensor that is defined.
  const DLTensor& view() const noexcept { return block_->view; }
  void* data() const noexcept { return block_->view.data; }
  DType dtype() const noexcept { return dtype_of(block_->view.dtype); }
  int rank() const noexcept { return block_->view.ndim; }
  const int64_t* sizes() const noexcept { return block_->view.shape; }
  const int64_t* strides() const noexcept { return block_->view.strides; }
  Device device() const noexcept { return block_->view.device; }
  bool is_cpu() const noexcept { return aoti::is_cpu(block_->view.device); }
  int64_t itemsize() const noexcept { return itemsize_of(block_->view.dtype); }
  int64_t numel() const noexcept;
  int64_t nbytes() const noexcept { return numel() * itemsize(); }

  // What keeps the memory alive, if `release` is what gives it back; else null.
  void* owner_if(Release release) const noexcept {
    return block_->release == release ? block_->owner : nullptr;
  }

 private:
  struct Block {
    std::atomic<int64_t> users{1};
    DLTensor view{};
    void* owner = nullptr;
    Release release = nullptr;
  };

  explicit Tensor(Block* block) noexcept : block_(block) {}
  static Block* make(const DLTensor& view, std::size_t room);
  static void destroy(Block* block) noexcept;

  Block* block_ = nullptr;
};

inline void describe(const Tensor& tensor, bool writable, ArrayView& array) noexcept {
  const DLTensor& view = tensor.view();
  array.data = view.data;
  array.dtype = dtype_of(view.dtype);
  array.rank = view.ndim;
  array.itemsize = array.unit = itemsize_of(view.dtype);
  array.sizes = view.shape;
  array.strides = view.strides;
  array.writable = writable;
  array.device = view.device;
  array.anywhere = false;
}

inline int64_t count_elements(const DLTensor& view) noexcept {
  int64_t count = 1;
  for (int i = 0; i < view.ndim; ++i) {
    count = wrapping_product(count, view.shape[i]);
  }
  return count;
}

inline int64_t Tensor::numel() const noexcept { return count_elements(block_->view); }

// Whether the bounds of two tensors overlap, whose strides are not negative. They need not have an
// element in common.
inline bool bounds_overlap(const Tensor& one, const Tensor& other) noexcept {
  ArrayView first, second;
  describe(one, false, first);
  describe(other, false, second);
  return one.numel() != 0 && other.numel() != 0 && same(first.device, second.device) &&
         (contains(first, other.data()) || contains(second, one.data()));
}

bool is_contiguous(const DLTensor& view) noexcept;  // in C order

// Whether every address between its first and its last element is one element's: then their order
// in memory does not matter to whoever wants all of them.
bool is_dense(const DLTensor& view) noexcept;

// -- on the CPU -----------------------------------------------------------------------------------

// Copies the elements of one tensor to another one of the same dtype and sizes. They must not
// overlap, unless both are contiguous.
void copy_elements(const DLTensor& to, const DLTensor& from) noexcept;

// A copy with these strides, in elements. No two elements may share memory.
Status copy_strided(
    const DLTensor& from, const std::vector<int64_t>& strides, Tensor& copy) noexcept;

// A copy in C order.
Status clone(const DLTensor& from, Tensor& copy) noexcept;

// A copy with the strides of the original if it is dense, else in C order.
Status clone_preserving(const DLTensor& from, Tensor& copy) noexcept;

}  // namespace aoti
