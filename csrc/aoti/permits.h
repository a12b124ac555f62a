#pragma once

// Who may run, and until when. Every run holds one of `num_runners` permits, so no thread ever
// waits inside the AOTInductor container: a thread that waits there while another one's run
// throws is never woken again (model_container.h notifies only on success).

#include <pthread.h>
#include <unistd.h>

#include <cstddef>

namespace aoti {

// pthread calls rather than std::condition_variable, whose wait() needs GLIBCXX_3.4.30 when built
// with gcc 12 and would raise the manylinux tag; std::counting_semaphore in libstdc++ can miss a
// wake-up (gcc bug 104928).
class Permits {
 public:
  explicit Permits(std::size_t count) noexcept : total_(count), free_(count) {}
  ~Permits() {
    pthread_cond_destroy(&changed_);
    pthread_mutex_destroy(&mutex_);
  }
  Permits(const Permits&) = delete;
  Permits& operator=(const Permits&) = delete;

  // Waits for a permit. False, without one, as soon as close() was called.
  bool acquire() noexcept {
    pthread_mutex_lock(&mutex_);
    while (free_ == 0 && !closed_) {
      pthread_cond_wait(&changed_, &mutex_);
    }
    const bool granted = !closed_;
    free_ -= granted ? 1 : 0;
    pthread_mutex_unlock(&mutex_);
    return granted;
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
  // nothing runs. True for the first of all callers only, who may then free what was guarded. In a
  // forked child it is never true: permits that were out at the fork do not come back there.
  bool close() noexcept {
    if (getpid() != owner_) {
      return false;
    }
    pthread_mutex_lock(&mutex_);
    const bool first = !closed_;
    closed_ = true;
    pthread_cond_broadcast(&changed_);
    while (free_ != total_) {
      pthread_cond_wait(&changed_, &mutex_);
    }
    pthread_mutex_unlock(&mutex_);
    return first;
  }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
  const pid_t owner_ = getpid();
  const std::size_t total_;
  std::size_t free_;
  bool closed_ = false;
};

// One permit for one scope.
class Permit {
 public:
  explicit Permit(Permits& permits) noexcept : permits_(permits), granted_(permits.acquire()) {}
  ~Permit() {
    if (granted_) {
      permits_.release();
    }
  }
  Permit(const Permit&) = delete;
  Permit& operator=(const Permit&) = delete;

  bool granted() const noexcept { return granted_; }

 private:
  Permits& permits_;
  const bool granted_;
};

}  // namespace aoti
