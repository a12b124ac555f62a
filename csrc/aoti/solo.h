#pragma once

// Which runs keep the GIL. To give it up and to take it back costs a tenth of a microsecond, and is
// for nothing where Python knows of no other thread. A thread that comes from elsewhere, a callback
// of some library's, may become known at any time, though, and then waits for the run that is under
// way. So runs keep it only after a short one; and never where the model calls operators that are
// not its own, which could wait for such a thread.

#include <aoti/compat.h>
#include <aoti/handover.h>

#include <dlfcn.h>

#include <cstdint>

namespace aoti {

// The threads that Python knows of, by functions that are partly outside of its limited API.
class PythonThreads {
 public:
  // When the module is imported: dlsym may wait for a thread that loads a library, and that one for
  // the GIL, a risk that an import has anyway.
  static void look_up() noexcept { known(); }

  // Whether the calling thread, which holds the GIL, is the only one that could want it.
  static bool only_this_one() noexcept {
    const PythonThreads& python = known();
    if (!python.complete_) {
      return false;
    }
    // Others are added and removed while this looks; only our own are looked into.
    void* const interpreter = python.interpreter_();
    void* const thread = python.thread_();
    return python.newest_thread_(interpreter) == thread && python.next_thread_(thread) == nullptr &&
           python.newest_interpreter_() == interpreter &&
           python.next_interpreter_(interpreter) == nullptr;
  }

 private:
  PythonThreads() noexcept {
    complete_ = find(interpreter_, "PyInterpreterState_Get") &&
                find(newest_interpreter_, "PyInterpreterState_Head") &&
                find(next_interpreter_, "PyInterpreterState_Next") &&
                find(thread_, "PyThreadState_Get") &&
                find(newest_thread_, "PyInterpreterState_ThreadHead") &&
                find(next_thread_, "PyThreadState_Next");
  }

  static const PythonThreads& known() noexcept {
    static const PythonThreads threads;
    return threads;
  }

  template <class Function>
  static bool find(Function*& function, const char* name) noexcept {
    function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
    return function != nullptr;
  }

  bool complete_ = false;
  void* (*interpreter_)() = nullptr;
  void* (*newest_interpreter_)() = nullptr;
  void* (*next_interpreter_)(void* interpreter) = nullptr;
  void* (*thread_)() = nullptr;
  void* (*newest_thread_)(void* interpreter) = nullptr;
  void* (*next_thread_)(void* thread) = nullptr;
};

// For the runs of one model. One in a while is timed, without the GIL; those that follow are taken
// to be as long. If they have other sizes and are not, up to 31 long ones keep it. Everything here
// is called with the GIL.
class Solo {
 public:
#ifdef Py_GIL_DISABLED
  bool keeps_gil() noexcept { return false; }
  int64_t begin() const noexcept { return 0; }
  void end(int64_t, int64_t) noexcept {}
#else
  // Whether the run that comes next keeps the GIL.
  bool keeps_gil() noexcept {
    return ++runs_ % kTimed != 0 && short_ && PythonThreads::only_this_one();
  }

  // When a run begins that does not, or 0 if it is not one to be timed; and once that has ended.
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
