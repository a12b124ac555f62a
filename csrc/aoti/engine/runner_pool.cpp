#include <aoti/engine/runner_pool.h>

#include <cerrno>
#include <ctime>
#include <utility>

namespace aoti {

namespace {

constexpr long kPatience = 50'000'000;  // nanoseconds

// All pools of the process, in a list through `previous_` and `next_`.
pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
RunnerPool* first = nullptr;
bool forked_in_run = false;  // written where there is one thread only

class Locked {
 public:
  explicit Locked(pthread_mutex_t& mutex) noexcept : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
  ~Locked() { pthread_mutex_unlock(&mutex_); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  pthread_mutex_t& mutex_;
};

}  // namespace

RunnerPool::RunnerPool(std::size_t count) : total_(count) {
  for (std::size_t number = count; number > 0; --number) {
    idle_.push_back(number - 1);
  }
  make_condition();
  const Locked lock(registry);
  next_ = first;
  if (next_ != nullptr) {
    next_->previous_ = this;
  }
  first = this;
}

RunnerPool::~RunnerPool() {
  {
    const Locked lock(registry);
    (previous_ != nullptr ? previous_->next_ : first) = next_;
    if (next_ != nullptr) {
      next_->previous_ = previous_;
    }
  }
  pthread_cond_destroy(&changed_);
  pthread_mutex_destroy(&mutex_);
}

Grant RunnerPool::acquire(std::shared_ptr<WeightSet>& weights, std::size_t& runner) noexcept {
  const Locked lock(mutex_);
  if (idle_.empty() && !closed_ && !forked_in_run) {
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
  if (closed_) {
    return Grant::kClosed;
  }
  if (forked_in_run) {
    return Grant::kLost;
  }
  if (idle_.empty()) {
    return Grant::kBusy;
  }
  if (served_ == nullptr) {
    return Grant::kUnset;
  }
  runner = idle_.back();
  idle_.pop_back();
  weights = served_;
  return Grant::kGranted;
}

void RunnerPool::release(std::shared_ptr<WeightSet>&& weights, std::size_t runner) noexcept {
  // Given up after the lock is released: to free replaced weights must not hold up other runs.
  const std::shared_ptr<WeightSet> share(std::move(weights));
  const Locked lock(mutex_);
  idle_.push_back(runner);  // within its capacity
  if (closed_) {
    pthread_cond_broadcast(&changed_);  // close() counts the runners that come back
  } else {
    pthread_cond_signal(&changed_);
  }
}

bool RunnerPool::serve(std::shared_ptr<WeightSet> weights) noexcept {
  const Locked lock(mutex_);
  if (closed_) {
    return false;
  }
  served_.swap(weights);
  return true;
}  // what was served before is freed by the parameter's destructor, after the lock is released

void RunnerPool::close() noexcept {
  std::shared_ptr<WeightSet> before;
  const Locked lock(mutex_);
  closed_ = true;
  pthread_cond_broadcast(&changed_);
  while (idle_.size() != total_ && !lost_) {
    pthread_cond_wait(&changed_, &mutex_);
  }
  served_.swap(before);
}

void RunnerPool::make_condition() noexcept {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&changed_, &attributes);
  pthread_condattr_destroy(&attributes);
}

void RunnerPool::before_fork() noexcept {
  pthread_mutex_lock(&registry);
  for (RunnerPool* each = first; each != nullptr; each = each->next_) {
    pthread_mutex_lock(&each->mutex_);
  }
}

void RunnerPool::after_fork_in_parent() noexcept {
  for (RunnerPool* each = first; each != nullptr; each = each->next_) {
    pthread_mutex_unlock(&each->mutex_);
  }
  pthread_mutex_unlock(&registry);
}

void RunnerPool::after_fork_in_child() noexcept {
  for (RunnerPool* each = first; each != nullptr; each = each->next_) {
    each->lost_ = each->idle_.size() != each->total_;
    forked_in_run = forked_in_run || each->lost_;
    each->make_condition();
  }
  after_fork_in_parent();
}

}  // namespace aoti
