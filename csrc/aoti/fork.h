#pragma once

// What a forked child inherits: locks that nobody holds, models that are idle or known not to be,
// and no team of OpenMP threads that is not there any more. Done in the forking thread, with or
// without the GIL; nobody who holds one of these locks waits for the GIL.

#include <aoti/openmp.h>
#include <aoti/permits.h>

#include <pthread.h>

#include <mutex>

namespace aoti {

// Construction parses metadata into a function-local static of libtorch: eight threads doing it at
// once crash (pytorch PR 194128). One lock for the whole process. A fork takes it too: libtorch and
// the dynamic loader are not caught halfway.
inline std::mutex& construction_mutex() {
  static std::mutex mutex;
  return mutex;
}

namespace detail {

inline bool& dismissed() noexcept {
  static thread_local bool value = true;
  return value;
}

inline void before_fork() noexcept {
  dismissed() = Team::mine().dismiss();
  EndingThreads::all().hold();
  construction_mutex().lock();
  Permits::hold_all();
}

inline void after_fork_in_parent() noexcept {
  Permits::let_go_of_all();
  construction_mutex().unlock();
  EndingThreads::all().let_go();
}

inline void after_fork_in_child() noexcept {
  Permits::inherit_all();
  construction_mutex().unlock();
  EndingThreads::all().inherit();
  Team::mine().lost = !dismissed();
}

}  // namespace detail

// Once per process, before anything runs. Children inherit the handlers.
inline void handle_forks() noexcept {
  static const int done = pthread_atfork(
      detail::before_fork, detail::after_fork_in_parent, detail::after_fork_in_child);
  static_cast<void>(done);
}

}  // namespace aoti
