#pragma once

// Tensors over the inputs of calls, kept from one call to the next: to point one at other memory
// takes a third of the time that it takes to make and to free one.

#include <aoti/errors.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <vector>

namespace aoti {

// What a model needs to find its own in those that each thread has: a thread's are never another
// one's, whose processor would have to fetch them. What a spare points at between two calls may be
// gone.
class Spares {
 public:
  // Sets places aside for the inputs of a model. With very many, models take them from each other.
  void reserve(std::size_t inputs) noexcept {
    static std::atomic<std::size_t> taken{0};
    first_ = taken.fetch_add(inputs, std::memory_order_relaxed);
  }

  // Adds a tensor over memory that somebody else keeps alive, for input number `i`: `borrow`.
  Failure borrow(
      std::size_t i,
      const Borrowed& array,
      const int64_t* strides,
      std::vector<at::Tensor>& tensors) const noexcept {
    static thread_local std::array<at::Tensor, kPlaces> mine;
    at::Tensor& spare = mine[(first_ + i) % kPlaces];
    const bool reused = reuse(spare, array, strides);
    return guarded([&]() -> Failure {
      if (!reused) {
        spare = tensor_over(array, strides);
      }
      tensors.push_back(spare);
      return {};
    });
  }

 private:
  static constexpr std::size_t kPlaces = 32;

  // Points a spare at an array. Not if somebody else has it or its storage: a bound call, an output
  // that lies in its input, an operator that keeps what it was given. Nor if it is not what it was.
  static bool reuse(
      const at::Tensor& spare, const Borrowed& array, const int64_t* strides) noexcept {
    if (!spare.defined() || spare.use_count() != 1 || spare.weak_use_count() != 1 ||
        !spare.has_storage() || !spare.is_cpu() || !array.place.is_cpu()) {
      return false;
    }
    const c10::TensorImpl& tensor = *spare.unsafeGetTensorImpl();
    const c10::Storage& storage = tensor.storage();
    const auto rank = static_cast<std::size_t>(array.rank);
    if (storage.use_count() != 1 || static_cast<int>(spare.scalar_type()) != array.dtype ||
        tensor.storage_offset() != 0 || !tensor.sizes().equals({array.sizes, rank}) ||
        !tensor.strides().equals({strides, rank})) {
      return false;
    }
    // If another thread was the last to give it up, what it did with it is done.
    std::atomic_thread_fence(std::memory_order_acquire);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(c10::DataPtr(array.data, array.place));
    return true;
  }

  std::size_t first_ = 0;
};

}  // namespace aoti
