#pragma once

// OpenMP as far as it must be known outside a parallel region: how many threads a run may use, and
// what a fork does to them. The functions themselves are those of the engines.

#include <aoti/engine/engine.h>
#include <aoti/engine/registry.h>

#include <cstdint>

namespace aoti {

// The number of threads for one scope of the calling thread, if it is not 0. OpenMP keeps the
// number per thread, and so does this: other threads, and later runs of this one, are not touched.
class ThreadCount {
 public:
  ThreadCount(const AotiEngine& engine, int32_t count) noexcept : engine_(engine) {
    if (count != 0) [[unlikely]] {
      set(count);
    }
  }
  ~ThreadCount() {
    if (before_ != 0) [[unlikely]] {
      engine_.set_num_threads(before_);
    }
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

  // What the engine said: AOTI_OK unless it cannot set the number.
  int32_t code() const noexcept { return code_; }

 private:
  void set(int32_t count) noexcept;

  const AotiEngine& engine_;
  int32_t before_ = 0;
  int32_t code_ = AOTI_OK;
};

// Whether the calling thread may have started OpenMP threads, and whether a fork took them away.
// libgomp keeps a team of threads per thread that ever needed one. In a forked child the team is
// gone, but the forking thread would still wait for it, forever.
struct ThreadTeam {
  bool started = false;
  bool lost = false;

  // libgomp does not join its workers when a thread ends, and the caller of pthread_join must not
  // wait for this.
  ~ThreadTeam();

  static ThreadTeam& mine() noexcept;

  // Ends the calling thread's team; the next parallel region makes a new one. False if there may
  // still be one.
  bool dismiss() noexcept;
};

// Threads that ran models and are about to end. They give back their memory then, under locks of
// MKL that a child forked in that moment would find taken for good. Python before 3.13 reports a
// thread as joined before it does so.
namespace ending_threads {

void add() noexcept;          // the calling thread, which is held up while a fork is under way
void before_fork() noexcept;  // waits for those that are ending: far less than a second
void after_fork_in_parent() noexcept;
void after_fork_in_child() noexcept;

}  // namespace ending_threads

}  // namespace aoti
