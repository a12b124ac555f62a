#pragma once

// OpenMP, as far as it must be known from outside of a parallel region: how many threads a run may
// use, and what a fork does to them.

#include <ATen/Parallel.h>

#include <stdexcept>

// Of the OpenMP that libtorch was linked to, which is also the one that packages use. Weak, so that
// nothing but libtorch is linked, and because older ones cannot pause.
extern "C" {
__attribute__((weak)) void omp_set_num_threads(int);
__attribute__((weak)) int omp_pause_resource_all(int);
}

namespace aoti {

// The number of threads for one scope of the calling thread, if it is not 0. OpenMP keeps that
// number per thread, and so does this: what other threads run, and what this one runs later, is not
// touched. at::set_num_threads would change it for the threads to come as well, and MKL's for all.
class ThreadCount {
 public:
  explicit ThreadCount(int count) {
    if (count == 0) {
      return;
    }
    if (omp_set_num_threads == nullptr) {
      throw std::runtime_error(
          "this libtorch does not use OpenMP: intra_op_threads cannot be kept");
    }
    // Not omp_get_max_threads: libtorch sets a thread's number when it first needs it, and would
    // do so in the middle of the run.
    const int before = at::get_num_threads();
    if (before != count) {
      omp_set_num_threads(count);
      before_ = before;
    }
  }
  ~ThreadCount() {
    if (before_ != 0) {
      omp_set_num_threads(before_);
    }
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_ = 0;
};

// Whether the calling thread may have started threads of OpenMP, and whether a fork took them away.
// libgomp keeps a team of threads per thread that ever needed one. In a forked child the team is
// gone, but the forking thread still waits for it, forever.
struct Team {
  bool started = false;
  bool lost = false;

  static Team& mine() noexcept {
    static thread_local Team team;
    return team;
  }

  // Dismisses the calling thread's team; the next parallel region makes a new one. False if there
  // may still be one.
  bool dismiss() noexcept {
    constexpr int kSoft = 1;  // omp_pause_soft: settings are kept
    const bool dismissed = omp_pause_resource_all != nullptr && omp_pause_resource_all(kSoft) == 0;
    started = started && !dismissed;
    return !started;
  }
};

}  // namespace aoti
