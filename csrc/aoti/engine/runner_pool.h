#pragma once

// The runners of a model: limits how many runs go on at once, and swaps weights between runs.
//
// Every run holds one runner, so no thread ever waits inside the AOTInductor container: a thread
// that waits there while another one's run throws is never woken (model_container.h notifies only
// on success). For the same reason a run gets the number of its runner.

#include <pthread.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace aoti {

class WeightSet;

enum class Grant : int {
  kGranted = 0,
  kBusy,    // no runner came back in time
  kClosed,  // the model was closed
  kLost,    // this process was forked while a model ran
  kUnset,   // there are no weights to run on yet
};

// pthread calls rather than std::condition_variable, whose wait() needs GLIBCXX_3.4.30 when built
// with gcc 12 and would raise the manylinux tag; std::counting_semaphore in libstdc++ can miss a
// wake-up (gcc bug 104928).
class RunnerPool {
 public:
  explicit RunnerPool(std::size_t count);
  ~RunnerPool();
  RunnerPool(const RunnerPool&) = delete;
  RunnerPool& operator=(const RunnerPool&) = delete;

  // Waits for a runner, but no longer than a signal may have to wait for its handler. With it comes
  // a share of the weights that are served now. The runner is the one that was in use last: its
  // memory is in the caches.
  Grant acquire(std::shared_ptr<WeightSet>& weights, std::size_t& runner) noexcept;

  // Gives back a runner and the share of the weights.
  void release(std::shared_ptr<WeightSet>&& weights, std::size_t runner) noexcept;

  // Serves these weights from now on; runs that are under way end on what they began with, which is
  // freed with the last of them. False once closed.
  bool serve(std::shared_ptr<WeightSet> weights) noexcept;

  // Turns away all who wait or come later, and returns when every runner is back: after this,
  // nothing runs, and nothing is served. Runners that were out at a fork do not come back in the
  // child, so there it does not wait for them.
  void close() noexcept;

  // -- around a fork: all pools are locked, so that the child finds each in a known state ---------

  static void before_fork() noexcept;
  static void after_fork_in_parent() noexcept;
  // The waiters of the parent are not there, but its condition still counts them. The parent's
  // runs may have held locks of libtorch or of its libraries (MKL's allocator has some): nothing
  // can run here any more without the danger of waiting for them forever.
  static void after_fork_in_child() noexcept;

 private:
  void make_condition() noexcept;

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_;
  const std::size_t total_;
  std::vector<std::size_t> idle_;
  std::shared_ptr<WeightSet> served_;
  bool closed_ = false;
  bool lost_ = false;
  RunnerPool* previous_ = nullptr;
  RunnerPool* next_ = nullptr;
};

// One runner for one scope, and the weights that it runs on.
class RunnerLease {
 public:
  explicit RunnerLease(RunnerPool& pool) noexcept
      : pool_(pool), grant_(pool.acquire(weights_, runner_)) {}
  ~RunnerLease() {
    if (grant_ == Grant::kGranted) {
      pool_.release(std::move(weights_), runner_);
    }
  }
  RunnerLease(const RunnerLease&) = delete;
  RunnerLease& operator=(const RunnerLease&) = delete;

  Grant grant() const noexcept { return grant_; }
  WeightSet& weights() const noexcept { return *weights_; }
  std::size_t runner() const noexcept { return runner_; }

 private:
  RunnerPool& pool_;
  std::shared_ptr<WeightSet> weights_;
  std::size_t runner_ = 0;
  const Grant grant_;
};

}  // namespace aoti
