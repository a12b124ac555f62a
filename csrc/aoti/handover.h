#pragma once

// How threads that run models at the same time hand the GIL to each other. Python's own way is to
// sleep until whoever holds it wakes one of the sleepers, which takes longer than a small model
// runs: two threads got less done than one. A thread that comes out of a run waits awake instead,
// for some microseconds at most, where another one came out of its own just before it: that one is
// likely to be on its way into the next. Calls of 2.2 us on two cores: 1.27 times one thread's rate
// with two threads, 1.10 with eight, where it was 0.65 and 0.53.
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

// Exists while a thread has given up the GIL for a run: made right after, gone right before it
// takes the GIL again.
class Handover {
 public:
  Handover() noexcept { state().store(0, std::memory_order_release); }
  ~Handover() {
    for (;;) {
      int64_t before = state().load(std::memory_order_acquire);
      const int64_t now = clock();
      if (!worth_waiting(before, now) &&
          state().compare_exchange_strong(before, -now, std::memory_order_acq_rel)) {
        return;
      }
      pause();
    }
  }
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

  // To be called once the GIL is there.
  static void taken() noexcept { state().store(clock(), std::memory_order_release); }

 private:
  // Nanoseconds. What a sleep would take; and what somebody who does sleep, because the GIL was not
  // ours, takes to wake up: if another one of us had it by then, that would go on and on.
  static constexpr int64_t kInPython = 10'000;
  static constexpr int64_t kAsleep = 100'000;

  // 0: nobody came out of a run since the last one went into one. Negative: when somebody came out,
  // who does not have the GIL yet. Positive: since when somebody has it.
  static std::atomic<int64_t>& state() noexcept {
    alignas(64) static std::atomic<int64_t> value{0};
    return value;
  }
  static bool worth_waiting(int64_t state, int64_t now) noexcept {
#ifdef Py_GIL_DISABLED
    return false;
#else
    return state > 0 ? now - state < kInPython : now + state < kAsleep && state != 0;
#endif
  }
  static int64_t clock() noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
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
