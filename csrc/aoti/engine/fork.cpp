#include <aoti/engine/fork.h>
#include <aoti/engine/openmp.h>
#include <aoti/engine/runner_pool.h>

#include <pthread.h>

namespace aoti {

namespace {

bool& dismissed() noexcept {
  static thread_local bool value = true;
  return value;
}

void before_fork() noexcept {
  dismissed() = ThreadTeam::mine().dismiss();
  ending_threads::before_fork();
  construction_mutex().lock();
  RunnerPool::before_fork();
}

void after_fork_in_parent() noexcept {
  RunnerPool::after_fork_in_parent();
  construction_mutex().unlock();
  ending_threads::after_fork_in_parent();
}

void after_fork_in_child() noexcept {
  RunnerPool::after_fork_in_child();
  construction_mutex().unlock();
  ending_threads::after_fork_in_child();
  ThreadTeam::mine().lost = !dismissed();
}

}  // namespace

std::mutex& construction_mutex() noexcept {
  static std::mutex mutex;
  return mutex;
}

void handle_forks() noexcept {
  static const int done = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  static_cast<void>(done);
}

}  // namespace aoti
