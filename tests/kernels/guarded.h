#pragma once

// Memory for operands, between pages that nothing may touch: to read a single byte before or after
// an operand ends the test.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

class Guarded {
 public:
  explicit Guarded(size_t most_bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    inside_ = (most_bytes + page - 1) / page * page;
    all_ = inside_ + 2 * page;
    void* const base = mmap(nullptr, all_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
      throw std::bad_alloc();
    }
    base_ = static_cast<char*>(base);
    begin_ = base_ + page;
    if (mprotect(begin_, inside_, PROT_READ | PROT_WRITE) != 0) {
      munmap(base_, all_);
      throw std::bad_alloc();
    }
  }
  ~Guarded() { munmap(base_, all_); }

  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  // So many of T, right before the page behind the memory, or right after the page before it.
  template <class T>
  T* place(int64_t count, bool at_end) const {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (bytes > inside_) {
      throw std::bad_alloc();
    }
    return reinterpret_cast<T*>(at_end ? begin_ + inside_ - bytes : begin_);
  }

 private:
  char* base_;
  char* begin_;
  size_t inside_;
  size_t all_;
};
