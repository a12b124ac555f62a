#pragma once

// OpenMP, as far as it must be known from outside of a parallel region: how many threads a run may
// use, and what a fork does to them.

#include <ATen/Parallel.h>

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
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

// Threads that ran models and are about to end. They give back their memory then, under locks of
// MKL that a child forked in that moment would find taken for good. Python before 3.13 reports a
// thread as joined before it does so.
class EndingThreads {
 public:
  static EndingThreads& all() noexcept {
    static auto* const threads = new EndingThreads;  // leaked: threads may end after exit()
    return *threads;
  }

  // The calling thread, which is held up while a fork is under way.
  void add() noexcept {
    pthread_mutex_lock(&mutex_);
    count_ = static_cast<std::size_t>(
        std::remove_if(ids_, ids_ + count_, [](pid_t id) { return !exists(id); }) - ids_);
    if (count_ < kMost) {
      ids_[count_++] = static_cast<pid_t>(syscall(SYS_gettid));  // glibc's gettid() is too new
    }
    pthread_mutex_unlock(&mutex_);
  }

  // Holds up those to come, and waits for the others to be gone: that takes far less than the
  // second which is the most it waits.
  void hold() noexcept {
    pthread_mutex_lock(&mutex_);
    for (int patience = 10'000; patience > 0; --patience) {
      if (std::none_of(ids_, ids_ + count_, exists)) {
        break;
      }
      usleep(100);
    }
  }

  void let_go() noexcept { pthread_mutex_unlock(&mutex_); }

  void inherit() noexcept {
    count_ = 0;
    let_go();
  }

 private:
  static constexpr std::size_t kMost = 1024;

  static bool exists(pid_t id) noexcept { return syscall(SYS_tgkill, getpid(), id, 0) == 0; }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pid_t ids_[kMost];
  std::size_t count_ = 0;
};

// Whether the calling thread may have started threads of OpenMP, and whether a fork took them away.
// libgomp keeps a team of threads per thread that ever needed one. In a forked child the team is
// gone, but the forking thread still waits for it, forever.
struct Team {
  bool started = false;
  bool lost = false;

  // libgomp would not wait for the team's end, and the caller of pthread_join may not wait for
  // this.
  ~Team() {
    if (started && !lost) {
      EndingThreads::all().add();
      dismiss();
    }
  }

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
