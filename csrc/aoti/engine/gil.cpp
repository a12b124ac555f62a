#include <aoti/engine/gil.h>

#include <dlfcn.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace aoti {

namespace {

#ifndef Py_GIL_DISABLED
// Nanoseconds: how long a thread stays in Python between two runs; how long one sleeps that did not
// get the GIL, which another waiter must leave to it; and the longest wait.
constexpr int64_t kInPython = 10'000;
constexpr int64_t kAsleep = 100'000;
constexpr int64_t kPatience = 20'000;

bool worth_waiting(int64_t state, int64_t now) noexcept {
  return state > 0 ? now - state < kInPython : now + state < kAsleep && state != 0;
}

void pause() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}
#endif

template <class Function>
bool find(Function*& function, const char* name) noexcept {
  function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
  return function != nullptr;
}

}  // namespace

#ifndef Py_GIL_DISABLED
std::atomic<int64_t>& GilHandover::state() noexcept {
  alignas(64) static std::atomic<int64_t> value{0};
  return value;
}

GilHandover::~GilHandover() {
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
#endif

PythonThreads::PythonThreads() noexcept {
  complete_ = find(interpreter_, "PyInterpreterState_Get") &&
              find(newest_interpreter_, "PyInterpreterState_Head") &&
              find(next_interpreter_, "PyInterpreterState_Next") &&
              find(thread_, "PyThreadState_Get") &&
              find(newest_thread_, "PyInterpreterState_ThreadHead") &&
              find(next_thread_, "PyThreadState_Next");
}

const PythonThreads& PythonThreads::known() noexcept {
  static const PythonThreads threads;
  return threads;
}

bool PythonThreads::only_this_one() noexcept {
  const PythonThreads& python = known();
  if (!python.complete_) {
    return false;
  }
  // Others are added and removed meanwhile; only our own are looked into.
  void* const interpreter = python.interpreter_();
  void* const thread = python.thread_();
  return python.newest_thread_(interpreter) == thread && python.next_thread_(thread) == nullptr &&
         python.newest_interpreter_() == interpreter &&
         python.next_interpreter_(interpreter) == nullptr;
}

}  // namespace aoti
