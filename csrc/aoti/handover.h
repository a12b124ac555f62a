#pragma once

// How threads that run models at the same time hand the GIL to each other. Python's own way is to
// sleep until whoever holds it wakes one of the sleepers, which takes longer than a small model
// runs: two threads got less done than one. A thread that comes out of a run waits awake instead,
// for twenty microseconds at most, where another one came out of its own just before it: that one
// is likely to be on its way into the next. docs/threads.md has what that brings.
//
// This only says when to ask for the GIL. Nothing depends on it being right, so a fork or a thread
// that never comes back leaves at worst one such wait behind.

#include <atomic>
#include <chrono>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace aoti {

inline int64_t nanoseconds() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Exists while a thread has given up the GIL for a run: made right after, gone right before it
// takes the GIL again.
class Handover {
 public:
#ifdef Py_GIL_DISABLED
  Handover() noexcept {}
  static int64_t taken() noexcept { return 0; }
#else
  Handover() noexcept { state().store(0, std::memory_order_release); }
  ~Handover() {
    const int64_t begun = nanoseconds();
    for (int64_t now = begun; now - begun < kPatience; now = nanoseconds()) {
      int64_t before = state().load(std::memory_order_acquire);
      if (!worth_waiting(before, now) &&
          state().compare_exchange_strong(before, -now, std::memory_order_acq_rel)) {
        return;
      }
      pause();
    }
    state().store(-nanoseconds(), std::memory_order_release);
  }

  // To be called once the GIL is there. Gives the time.
  static int64_t taken() noexcept {
    const int64_t now = nanoseconds();
    state().store(now, std::memory_order_release);
    return now;
  }
#endif
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

 private:
  // Nanoseconds. What a sleep would take; the wait of the one before, if that one sleeps because
  // the GIL was not ours, and shall not find another one of us in its place when it wakes up; and
  // the wait altogether.
  static constexpr int64_t kInPython = 10'000;
  static constexpr int64_t kAsleep = 100'000;
  static constexpr int64_t kPatience = 20'000;

  // 0: nobody came out of a run since the last one went into one. Negative: when somebody came out,
  // who does not have the GIL yet. Positive: since when somebody has it.
  static std::atomic<int64_t>& state() noexcept {
    alignas(64) static std::atomic<int64_t> value{0};
    return value;
  }
  static bool worth_waiting(int64_t state, int64_t now) noexcept {
    return state > 0 ? now - state < kInPython : now + state < kAsleep && state != 0;
  }
  static void pause() noexcept {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
  }
};

}  // namespace aoti
