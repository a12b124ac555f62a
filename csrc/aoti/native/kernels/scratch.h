#pragma once

// Memory that a thread keeps from one call of a kernel to the next.

#include <cstdint>

namespace aoti::native {

class Scratch {
 public:
  enum Slot { kLeft, kRight, kAttention, kSlots };

  // At least `count` floats, aligned to 64 bytes. One at a time for each slot of a thread.
  Scratch(Slot slot, int64_t count);
  ~Scratch();

  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* data() const noexcept { return data_; }

 private:
  Slot slot_;
  float* data_;
};

}  // namespace aoti::native
