#pragma once

// Who may run, on what, and until when. Every run holds one of `num_runners` permits, so no thread
// ever waits inside the AOTInductor container: a thread that waits there while another one's run
// throws is never woken again (model_container.h notifies only on success). With the permit comes
// the number of a runner that nobody else has meanwhile.

#include <pthread.h>

#include <cerrno>
#include <cstddef>
#include <ctime>
#include <vector>

namespace aoti {

enum class Grant : int {
  kGranted = 0,
  kBusy,    // none came back in time
  kClosed,  // the model was closed
  kLost,    // this process was forked while a model ran
  kUnset,   // there is nothing to run on yet
};

// What runs run on. Which one that is may change between two runs; whoever holds one keeps it.
class Served {
 public:
  Served() = default;
  virtual ~Served() = default;
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

 private:
  friend class Permits;
  std::size_t holders_ = 1;  // guarded by the mutex of the Permits
};

// pthread calls rather than std::condition_variable, whose wait() needs GLIBCXX_3.4.30 when built
// with gcc 12 and would raise the manylinux tag; std::counting_semaphore in libstdc++ can miss a
// wake-up (gcc bug 104928).
class Permits {
 public:
  explicit Permits(std::size_t count) : total_(count) {
    for (std::size_t number = count; number > 0; --number) {
      idle_.push_back(number - 1);
    }
    make_condition();
    pthread_mutex_lock(&registry());
    next_ = first();
    if (next_ != nullptr) {
      next_->previous_ = this;
    }
    first() = this;
    pthread_mutex_unlock(&registry());
  }
  ~Permits() {
    pthread_mutex_lock(&registry());
    (previous_ != nullptr ? previous_->next_ : first()) = next_;
    if (next_ != nullptr) {
      next_->previous_ = previous_;
    }
    pthread_mutex_unlock(&registry());
    pthread_cond_destroy(&changed_);
    pthread_mutex_destroy(&mutex_);
  }
  Permits(const Permits&) = delete;
  Permits& operator=(const Permits&) = delete;

  // Waits for a permit, but no longer than a signal may have to wait for its handler. With it come
  // a hold on what is served now, and the runner that was last in use: its memory is in the caches.
  Grant acquire(Served*& served, std::size_t& runner) noexcept {
    constexpr long kPatience = 50'000'000;  // nanoseconds
    pthread_mutex_lock(&mutex_);
    if (idle_.empty() && !closed_ && !forked_in_run()) {
      timespec until;
      clock_gettime(CLOCK_MONOTONIC, &until);
      until.tv_nsec += kPatience;
      if (until.tv_nsec >= 1'000'000'000) {
        until.tv_nsec -= 1'000'000'000;
        ++until.tv_sec;
      }
      while (idle_.empty() && !closed_ &&
             pthread_cond_timedwait(&changed_, &mutex_, &until) != ETIMEDOUT) {
      }
    }
    const Grant grant = closed_           ? Grant::kClosed
                        : forked_in_run() ? Grant::kLost
                        : idle_.empty()   ? Grant::kBusy
                        : !served_        ? Grant::kUnset
                                          : Grant::kGranted;
    if (grant == Grant::kGranted) {
      runner = idle_.back();
      idle_.pop_back();
      served = served_;
      ++served->holders_;
    }
    pthread_mutex_unlock(&mutex_);
    return grant;
  }

  // Gives back a permit and what came with it.
  void release(Served* served, std::size_t runner) noexcept {
    pthread_mutex_lock(&mutex_);
    idle_.push_back(runner);  // within its capacity
    const bool last = let_go(served);
    if (closed_) {
      pthread_cond_broadcast(&changed_);  // close() counts the permits that came back
    } else {
      pthread_cond_signal(&changed_);
    }
    pthread_mutex_unlock(&mutex_);
    if (last) {
      delete served;
    }
  }

  // Serves this from now on; runs that are under way end on what they began with, which is freed
  // with the last of them. False once closed.
  bool serve(Served* served) noexcept {
    pthread_mutex_lock(&mutex_);
    const bool open = !closed_;
    Served* before = nullptr;
    if (open) {
      ++served->holders_;
      before = served_;
      served_ = served;
    }
    const bool last = before != nullptr && let_go(before);
    pthread_mutex_unlock(&mutex_);
    if (last) {
      delete before;
    }
    return open;
  }

  // Gives up a hold.
  void drop(Served* served) noexcept {
    pthread_mutex_lock(&mutex_);
    const bool last = let_go(served);
    pthread_mutex_unlock(&mutex_);
    if (last) {
      delete served;
    }
  }

  // Turns away all who wait or come later, and returns when every permit is back: after this,
  // nothing runs, and nothing is served. Not so where permits were out at a fork: they do not come
  // back in the child.
  void close() noexcept {
    pthread_mutex_lock(&mutex_);
    closed_ = true;
    pthread_cond_broadcast(&changed_);
    while (idle_.size() != total_ && !lost_) {
      pthread_cond_wait(&changed_, &mutex_);
    }
    Served* before = served_;
    served_ = nullptr;
    const bool last = before != nullptr && let_go(before);
    pthread_mutex_unlock(&mutex_);
    if (last) {
      delete before;
    }
  }

  // -- around a fork: all are held, so that the child finds every one in a known state -----------

  static void hold_all() noexcept {
    pthread_mutex_lock(&registry());
    for (Permits* each = first(); each != nullptr; each = each->next_) {
      pthread_mutex_lock(&each->mutex_);
    }
  }

  static void let_go_of_all() noexcept {
    for (Permits* each = first(); each != nullptr; each = each->next_) {
      pthread_mutex_unlock(&each->mutex_);
    }
    pthread_mutex_unlock(&registry());
  }

  // In the child. Those who waited in the parent are not there, but still counted by the condition.
  // Those who ran may have held locks of libtorch, or of what it is linked to (MKL's allocator has
  // some): nothing can run here any more without the danger of waiting for them forever.
  static void inherit_all() noexcept {
    for (Permits* each = first(); each != nullptr; each = each->next_) {
      each->lost_ = each->idle_.size() != each->total_;
      forked_in_run() = forked_in_run() || each->lost_;
      each->make_condition();
    }
    let_go_of_all();
  }

 private:
  // Whether that was the last hold. A run that a fork took away never gives up its own: what it ran
  // on is left alone, with locks in whatever state they were.
  static bool let_go(Served* served) noexcept { return --served->holders_ == 0; }

  void make_condition() noexcept {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed_, &attributes);
    pthread_condattr_destroy(&attributes);
  }

  static pthread_mutex_t& registry() noexcept {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    return mutex;
  }
  static bool& forked_in_run() noexcept {  // written where there is one thread only
    static bool value = false;
    return value;
  }
  static Permits*& first() noexcept {
    static Permits* permits = nullptr;
    return permits;
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_;
  const std::size_t total_;
  std::vector<std::size_t> idle_;
  Served* served_ = nullptr;
  bool closed_ = false;
  bool lost_ = false;
  Permits* previous_ = nullptr;
  Permits* next_ = nullptr;
};

// One permit for one scope, and what it is for.
class Permit {
 public:
  explicit Permit(Permits& permits) noexcept
      : permits_(permits), grant_(permits.acquire(served_, runner_)) {}
  ~Permit() {
    if (grant_ == Grant::kGranted) {
      permits_.release(served_, runner_);
    }
  }
  Permit(const Permit&) = delete;
  Permit& operator=(const Permit&) = delete;

  Grant grant() const noexcept { return grant_; }
  Served& served() const noexcept { return *served_; }
  std::size_t runner() const noexcept { return runner_; }

 private:
  Permits& permits_;
  Served* served_ = nullptr;
  std::size_t runner_ = 0;
  const Grant grant_;
};

}  // namespace aoti
