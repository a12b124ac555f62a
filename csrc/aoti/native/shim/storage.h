#pragma once

// Memory that tensors share. The last of them gives it back, from whichever thread.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace aoti::native {

class Storage {
 public:
  Storage() = default;
  Storage(const Storage& other) noexcept : block_(other.block_) {
    if (block_ != nullptr) {
      block_->users.fetch_add(1, std::memory_order_relaxed);
    }
  }
  Storage(Storage&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Storage& operator=(Storage other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Storage() {
    if (block_ != nullptr && block_->users.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      destroy(block_);
    }
  }

  // New memory, aligned to 64 bytes and not initialised. Throws std::bad_alloc.
  static Storage allocate(std::size_t bytes);

  // Memory that `release(owner)` gives back; a null `release` if nobody has to. Throws
  // std::bad_alloc, and then has released the owner.
  static Storage over(void* data, void* owner, void (*release)(void*));

  bool defined() const noexcept { return block_ != nullptr; }

  // The rest wants a storage that is defined.
  void* data() const noexcept { return block_->data; }
  std::size_t bytes() const noexcept { return block_->bytes; }
  void set_bytes(std::size_t bytes) noexcept { block_->bytes = bytes; }

  // Whether the memory stays only as long as somebody else keeps it.
  bool borrowed() const noexcept { return block_->borrowed; }

  // The same for all that share it.
  const void* identity() const noexcept { return block_; }

 private:
  struct Block {
    std::atomic<int64_t> users{1};
    void* data = nullptr;
    std::size_t bytes = 0;
    void* owner = nullptr;
    void (*release)(void*) = nullptr;
    bool borrowed = false;
  };

  explicit Storage(Block* block) noexcept : block_(block) {}
  static void destroy(Block* block) noexcept;

  Block* block_ = nullptr;
};

}  // namespace aoti::native
