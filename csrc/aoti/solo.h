#pragma once

// Which runs keep the GIL. To give it up and to take it back costs a tenth of a microsecond, and is
// for nothing where Python knows of no other thread. A thread that comes from elsewhere, a callback
// of some library's, may become known at any time, though, and then waits for the run that is under
// way: so only what is short keeps the GIL.

#include <aoti/handover.h>

#include <dlfcn.h>

#include <cstdint>

namespace aoti {

#ifndef Py_GIL_DISABLED
// What Python tells outside of its limited API, for debuggers. It has stayed the same since 3.0.
class PythonThreads {
 public:
  // Whether the calling thread, which holds the GIL, is the only one that could want it.
  static bool only_this_one() noexcept {
    static const PythonThreads threads;
    if (!threads.known_) {
      return false;
    }
    // Others are added and removed while this looks; only our own are looked into.
    PyInterpreterState* const interpreter = PyInterpreterState_Get();
    PyThreadState* const thread = PyThreadState_Get();
    return threads.newest_(interpreter) == thread && threads.next_(thread) == nullptr &&
           threads.newest_interpreter_() == interpreter &&
           threads.next_interpreter_(interpreter) == nullptr;
  }

 private:
  PythonThreads() noexcept
      : known_(
            find(newest_, "PyInterpreterState_ThreadHead") && find(next_, "PyThreadState_Next") &&
            find(newest_interpreter_, "PyInterpreterState_Head") &&
            find(next_interpreter_, "PyInterpreterState_Next")) {}

  template <class Function>
  static bool find(Function*& function, const char* name) noexcept {
    function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
    return function != nullptr;
  }

  PyThreadState* (*newest_)(PyInterpreterState*) = nullptr;
  PyThreadState* (*next_)(PyThreadState*) = nullptr;
  PyInterpreterState* (*newest_interpreter_)() = nullptr;
  PyInterpreterState* (*next_interpreter_)(PyInterpreterState*) = nullptr;
  bool known_;
};
#endif

// For the runs of one model. One in a while is timed, without the GIL; those that follow are taken
// to be as long. Everything here is called with the GIL.
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
