#pragma once

// Memory for weights: a part of a file, mapped, or private pages. The last user gives it back to
// the system, from any thread, without the GIL.

#include <aoti/core/status.h>
#include <aoti/core/tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace aoti {

class Memory {
 public:
  // A part of a file: read-only and shared with other processes, or `writable` privately.
  static Status map(
      int file,
      std::size_t offset,
      std::size_t bytes,
      bool writable,
      std::shared_ptr<Memory>& memory) noexcept;

  // A copy of a part of a file.
  static Status read(
      int file, std::size_t offset, std::size_t bytes, std::shared_ptr<Memory>& memory) noexcept;

  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* at(std::size_t offset) noexcept { return static_cast<char*>(base_) + before_ + offset; }
  std::size_t bytes() const noexcept { return bytes_; }

  // Brings every page into the process that is not there yet, where the kernel can (Linux 5.14).
  void populate() noexcept;

 private:
  // `before` bytes of the mapping are not part of the memory: a mapping begins at a page.
  Memory(void* base, std::size_t before, std::size_t bytes) noexcept
      : base_(base), before_(before), bytes_(bytes) {}

  void* const base_;
  const std::size_t before_;
  const std::size_t bytes_;
};

// A tensor in the memory, which it keeps. The caller has checked that it lies inside.
Status tensor_in(
    const std::shared_ptr<Memory>& memory,
    std::size_t offset,
    DType dtype,
    const std::vector<int64_t>& sizes,
    const std::vector<int64_t>& strides,
    Tensor& tensor) noexcept;

}  // namespace aoti
