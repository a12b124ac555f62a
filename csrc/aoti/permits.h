#pragma once

// Who may run, and until when. Every run holds one of `num_runners` permits, so no thread ever
// waits inside the AOTInductor container: a thread that waits there while another one's run
// throws is never woken again (model_container.h notifies only on success).

#include <pthread.h>

#include <cerrno>
#include <cstddef>
#include <ctime>

namespace aoti {

enum class Grant : int {
  kGranted = 0,
  kBusy,    // none came back in time
  kClosed,  // the model was closed
  kLost,    // this process was forked while a model ran
};

// pthread calls rather than std::condition_variable, whose wait() needs GLIBCXX_3.4.30 when built
// with gcc 12 and would raise the manylinux tag; std::counting_semaphore in libstdc++ can miss a
// wake-up (gcc bug 104928).
class Permits {
 public:
  explicit Permits(std::size_t count) noexcept : total_(count), free_(count) {
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

  // Waits for a permit, but no longer than a signal may have to wait for its handler.
  Grant acquire() noexcept {
    constexpr long kPatience = 50'000'000;  // nanoseconds
    pthread_mutex_lock(&mutex_);
    if (free_ == 0 && !closed_ && !forked_in_run()) {
      timespec until;
      clock_gettime(CLOCK_MONOTONIC, &until);
      until.tv_nsec += kPatience;
      if (until.tv_nsec >= 1'000'000'000) {
        until.tv_nsec -= 1'000'000'000;
        ++until.tv_sec;
      }
      while (free_ == 0 && !closed_ &&
             pthread_cond_timedwait(&changed_, &mutex_, &until) != ETIMEDOUT) {
      }
    }
    const Grant grant = closed_           ? Grant::kClosed
                        : forked_in_run() ? Grant::kLost
                        : free_ == 0      ? Grant::kBusy
                                          : Grant::kGranted;
    free_ -= grant == Grant::kGranted ? 1 : 0;
    pthread_mutex_unlock(&mutex_);
    return grant;
  }

  void release() noexcept {
    pthread_mutex_lock(&mutex_);
    ++free_;
    if (closed_) {
      pthread_cond_broadcast(&changed_);  // close() counts the permits that came back
    } else {
      pthread_cond_signal(&changed_);
    }
    pthread_mutex_unlock(&mutex_);
  }

  // Turns away all who wait or come later, and returns when every permit is back: after this,
  // nothing runs. True for the first of all callers only, who may then free what was guarded. It is
  // never true where permits were out at a fork: they do not come back in the child.
  bool close() noexcept {
    pthread_mutex_lock(&mutex_);
    const bool first = !closed_;
    closed_ = true;
    pthread_cond_broadcast(&changed_);
    while (free_ != total_ && !lost_) {
      pthread_cond_wait(&changed_, &mutex_);
    }
    const bool free_it = first && !lost_;
    pthread_mutex_unlock(&mutex_);
    return free_it;
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
      each->lost_ = each->free_ != each->total_;
      forked_in_run() = forked_in_run() || each->lost_;
      each->make_condition();
    }
    let_go_of_all();
  }

 private:
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
  std::size_t free_;
  bool closed_ = false;
  bool lost_ = false;
  Permits* previous_ = nullptr;
  Permits* next_ = nullptr;
};

// One permit for one scope.
class Permit {
 public:
  explicit Permit(Permits& permits) noexcept : permits_(permits), grant_(permits.acquire()) {}
  ~Permit() {
    if (grant_ == Grant::kGranted) {
      permits_.release();
    }
  }
  Permit(const Permit&) = delete;
  Permit& operator=(const Permit&) = delete;

  Grant grant() const noexcept { return grant_; }

 private:
  Permits& permits_;
  const Grant grant_;
};

}  // namespace aoti
