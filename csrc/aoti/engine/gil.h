#pragma once

// When runs give up the GIL, and how threads that run models hand it to each other. Both are
// measured (docs/threads.md; tests/benchmarks/calls.py has a row for each): giving up the GIL and
// taking it back costs 0.1 us of a call that takes 2.2, and without the hand-over two threads get
// less done than one.

#include <atomic>
#include <chrono>
#include <cstdint>

namespace aoti {

inline int64_t nanoseconds() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Exists while a thread has given up the GIL for a run: made right after, gone right before it
// takes the GIL again.
//
// Python's own way is to sleep until whoever holds the GIL wakes one of the sleepers, which takes
// longer than a small model runs. A thread that comes out of a run waits awake instead, for at most
// twenty microseconds, if another thread came out of a run just before: that one is likely to
// be on its way into the next. Nothing depends on this being right: a fork, or a thread that never
// comes back, leaves at worst one such wait behind.
class GilHandover {
 public:
#ifdef Py_GIL_DISABLED
  GilHandover() noexcept {}
  static int64_t taken() noexcept { return 0; }
#else
  GilHandover() noexcept { state().store(0, std::memory_order_release); }
  ~GilHandover();

  // To be called once the GIL is there. Returns the time.
  static int64_t taken() noexcept {
    const int64_t now = nanoseconds();
    state().store(now, std::memory_order_release);
    return now;
  }
#endif
  GilHandover(const GilHandover&) = delete;
  GilHandover& operator=(const GilHandover&) = delete;

 private:
  // 0: nobody came out of a run since the last one went into one. Negative: when somebody came out,
  // who does not have the GIL yet. Positive: since when somebody has it.
  static std::atomic<int64_t>& state() noexcept;
};

// The threads that Python knows, found by functions that are partly outside its limited API.
class PythonThreads {
 public:
  // When the module is imported: dlsym may wait for a thread that loads a library, and that thread
  // for the GIL, a risk that an import has anyway.
  static void look_up() noexcept { known(); }

  // Whether the calling thread, which holds the GIL, is the only one that could want it.
  static bool only_this_one() noexcept;

 private:
  PythonThreads() noexcept;
  static const PythonThreads& known() noexcept;

  bool complete_ = false;
  void* (*interpreter_)() = nullptr;
  void* (*newest_interpreter_)() = nullptr;
  void* (*next_interpreter_)(void* interpreter) = nullptr;
  void* (*thread_)() = nullptr;
  void* (*newest_thread_)(void* interpreter) = nullptr;
  void* (*next_thread_)(void* thread) = nullptr;
};

// Which runs of one model keep the GIL: short ones of a program with a single thread. A thread that
// Python did not know, such as a library's callback, may appear at any time and then waits for the
// run that is under way. So runs keep the GIL only after a short one, and never if the model calls
// operators of others, which could wait for such a thread. One run in a while is timed without the
// GIL, and the next ones are taken to be as long: after a change of sizes, up to 31 long runs may
// keep the GIL. All methods want the GIL.
class GilPolicy {
 public:
#ifdef Py_GIL_DISABLED
  bool keeps_gil() noexcept { return false; }
  int64_t begin() const noexcept { return 0; }
  void end(int64_t, int64_t) noexcept {}
#else
  // Whether the next run keeps the GIL.
  bool keeps_gil() noexcept {
    return ++runs_ % kTimed != 0 && short_ && PythonThreads::only_this_one();
  }

  // When a run begins that does not, or 0 if it is not to be timed; and once that has ended.
  int64_t begin() const noexcept { return runs_ % kTimed == 0 ? nanoseconds() : 0; }
  void end(int64_t begun, int64_t now) noexcept {
    if (begun != 0) {
      short_ = now - begun < kShort;
    }
  }
#endif

 private:
  static constexpr int64_t kShort = 20'000;  // nanoseconds
  static constexpr uint32_t kTimed = 32;

  uint32_t runs_ = UINT32_MAX;  // the first is timed
  bool short_ = false;
};

}  // namespace aoti
