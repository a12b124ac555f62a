#pragma once

// Memory for weights: a part of a file, mapped, or pages of our own. Given back to the system with
// the last tensor that lies in it, from any thread, without the GIL.

#include <aoti/errors.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <vector>

namespace aoti {

class Memory {
 public:
  // A part of a file. Where the model writes to its weights, it writes to pages of its own.
  static Memory* map(int file, std::size_t offset, std::size_t bytes, bool writable) {
    const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    const int sharing = writable ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t before = bytes == 0 ? 0 : offset % page;
    void* base = mapped(before + bytes, protection, sharing, file, offset - before);
    return new Memory(base, before, bytes);
  }

  // A copy of a part of a file.
  static Memory* read(int file, std::size_t offset, std::size_t bytes) {
    void* base = mapped(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    auto* memory = new Memory(base, 0, bytes);
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t got =
          pread(file, memory->at(done), bytes - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got <= 0) {
        release(memory);
        throw std::system_error(
            got < 0 ? errno : EIO, std::generic_category(), "the weights could not be read");
      }
      done += static_cast<std::size_t>(got);
    }
    return memory;
  }

  // Takes another user of the memory, who calls release().
  void* share() noexcept {
    users_.fetch_add(1, std::memory_order_relaxed);
    return this;
  }

  static void release(void* memory) noexcept {
    auto* self = static_cast<Memory*>(memory);
    if (self->users_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete self;
    }
  }

  void* at(std::size_t offset) noexcept { return static_cast<char*>(base_) + before_ + offset; }
  std::size_t bytes() const noexcept { return bytes_; }

  // Reads every page of it into the process, as far as it is not there yet.
  void populate() noexcept {
#ifdef MADV_POPULATE_READ
    if (bytes_ != 0) {
      madvise(base_, before_ + bytes_, MADV_POPULATE_READ);  // Linux 5.14; else page by page
    }
#endif
  }

 private:
  // `before` bytes of the mapping are not part of it: it begins at a page.
  Memory(void* base, std::size_t before, std::size_t bytes) noexcept
      : base_(base), before_(before), bytes_(bytes) {}
  ~Memory() {
    if (bytes_ != 0) {
      munmap(base_, before_ + bytes_);
    }
  }

  static void* mapped(
      std::size_t bytes, int protection, int flags, int file, std::size_t offset = 0) {
    if (bytes == 0) {
      return nullptr;
    }
    void* base = mmap(nullptr, bytes, protection, flags, file, static_cast<off_t>(offset));
    if (base == MAP_FAILED) {
      throw std::system_error(errno, std::generic_category(), "the weights could not be mapped");
    }
    return base;
  }

  void* const base_;
  const std::size_t before_;
  const std::size_t bytes_;
  std::atomic<std::size_t> users_{1};
};

inline Failure map_memory(
    Memory*& memory, int file, std::size_t offset, std::size_t bytes, bool writable) noexcept {
  return guarded([&]() -> Failure {
    memory = Memory::map(file, offset, bytes, writable);
    return {};
  });
}

inline Failure read_memory(
    Memory*& memory, int file, std::size_t offset, std::size_t bytes) noexcept {
  return guarded([&]() -> Failure {
    memory = Memory::read(file, offset, bytes);
    return {};
  });
}

// A tensor in this memory, which the tensor keeps. The caller has checked that it lies inside.
inline Failure tensor_in(
    Memory& memory,
    std::size_t offset,
    int dtype,
    const std::vector<int64_t>& sizes,
    const std::vector<int64_t>& strides,
    at::Tensor& tensor) noexcept {
  return guarded([&]() -> Failure {
    c10::DataPtr data(memory.at(offset), memory.share(), Memory::release, c10::Device(c10::kCPU));
    tensor = detail::tensor_over(std::move(data), dtype, sizes, strides);
    return {};
  });
}

}  // namespace aoti
