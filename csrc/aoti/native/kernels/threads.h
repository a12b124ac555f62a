#pragma once

// How work is shared out among OpenMP's threads.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace aoti::native {

struct Range {
  int64_t begin;
  int64_t end;
};

struct Grid {
  int64_t rows;
  int64_t columns;
};

// The threads that a caller may use: 1 if it is one of several itself.
inline int64_t threads_here() noexcept {
#if defined(_OPENMP)
  return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// Part `index` of as many as `parts` of a range that is cut only at multiples of `unit`.
inline Range range_of(int64_t size, int64_t unit, int64_t parts, int64_t index) noexcept {
  const int64_t units = (size + unit - 1) / unit;
  return {
      std::min(size, units * index / parts * unit),
      std::min(size, units * (index + 1) / parts * unit)};
}

// The parts that as many threads should cut m rows and n columns into, at multiples of `height` and
// `width`: so that the largest part, and the copy of its columns of b, take least time.
inline Grid share(int64_t m, int64_t height, int64_t n, int64_t width, int64_t threads) noexcept {
  constexpr int64_t kCopy = 12;  // a copy takes as long as so many rows
  Grid best = {1, 1};
  int64_t least = INT64_MAX;
  for (int64_t columns = 1; columns <= threads; ++columns) {
    const Grid grid = {threads / columns, columns};
    const int64_t high = ((m + height - 1) / height + grid.rows - 1) / grid.rows * height;
    const int64_t wide = ((n + width - 1) / width + grid.columns - 1) / grid.columns * width;
    const int64_t time = (std::min(m, high) + kCopy) * std::min(n, wide);
    if (time < least || (time == least && columns * grid.rows < best.rows * best.columns)) {
      least = time;
      best = grid;
    }
  }
  return best;
}

#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

// What the threads of a parallel region have in common. libgomp is not compiled with
// ThreadSanitizer, which therefore does not see where threads wait for each other: Team tells it.
class Team {
 public:
  Team() noexcept { release(&begun_); }

  // What one thread does. A std::bad_alloc, which is all that it may throw, is kept for finish().
  template <class Body>
  void run(const Body& body, int64_t index) noexcept {
    acquire(&begun_);
    try {
      body(index);
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;
    }
    release(&ended_);
  }

  // Called after the region.
  void finish() {
    acquire(&ended_);
    if (out_of_memory_) {
      throw std::bad_alloc();
    }
  }

 private:
  static void acquire([[maybe_unused]] char* event) noexcept {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(event);
#endif
  }

  static void release([[maybe_unused]] char* event) noexcept {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(event);
#endif
  }

  char begun_ = 0;
  char ended_ = 0;
  std::atomic<bool> out_of_memory_ = false;  // not a std::exception_ptr, which is CXXABI_1.3.13
};

// Calls body(0) to body(count - 1), each on a thread of its own where there are so many. A
// std::bad_alloc of one of them goes to the caller. The team is always the same, whatever `count`:
// GNU's OpenMP ends the threads that a smaller team leaves over, and starts them anew for the next.
template <class Body>
void parallel(int64_t count, const Body& body) {
  Team team;
#if defined(_OPENMP)
#pragma omp parallel for schedule(static, 1)
#endif
  for (int64_t index = 0; index < count; ++index) {
    team.run(body, index);
  }
  team.finish();
}

// The same for more calls than threads, which may take different times.
template <class Body>
void parallel_tasks(int64_t count, const Body& body) {
  Team team;
#if defined(_OPENMP)
#pragma omp parallel for schedule(dynamic, 1)
#endif
  for (int64_t index = 0; index < count; ++index) {
    team.run(body, index);
  }
  team.finish();
}

}  // namespace aoti::native
