#include <aoti/engine/openmp.h>

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>

namespace aoti {

void ThreadCount::set(int32_t count) noexcept {
  const int32_t before = engine_.get_num_threads();
  if (before == count) {
    return;
  }
  code_ = engine_.set_num_threads(count);
  if (code_ == AOTI_OK) {
    before_ = before;
  }
}

ThreadTeam::~ThreadTeam() {
  if (started && !lost) {
    ending_threads::add();
    dismiss();
  }
}

ThreadTeam& ThreadTeam::mine() noexcept {
  static thread_local ThreadTeam team;
  return team;
}

bool ThreadTeam::dismiss() noexcept {
  bool dismissed = true;
  for_each_engine(
      [](const AotiEngine& engine, void* all) {
        if (engine.pause_threads() != 1) {
          *static_cast<bool*>(all) = false;
        }
      },
      &dismissed);
  started = started && !dismissed;
  return !started;
}

namespace ending_threads {

namespace {

constexpr std::size_t kMost = 1024;

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
pid_t ids[kMost];
std::size_t count = 0;

bool exists(pid_t id) noexcept { return syscall(SYS_tgkill, getpid(), id, 0) == 0; }

}  // namespace

void add() noexcept {
  pthread_mutex_lock(&mutex);
  pid_t* const end = std::remove_if(ids, ids + count, [](pid_t id) { return !exists(id); });
  count = static_cast<std::size_t>(end - ids);
  if (count < kMost) {
    ids[count++] = static_cast<pid_t>(syscall(SYS_gettid));  // glibc's gettid() is too new
  }
  pthread_mutex_unlock(&mutex);
}

void before_fork() noexcept {
  pthread_mutex_lock(&mutex);
  for (int patience = 10'000; patience > 0; --patience) {  // a second
    if (std::none_of(ids, ids + count, exists)) {
      break;
    }
    usleep(100);
  }
}

void after_fork_in_parent() noexcept { pthread_mutex_unlock(&mutex); }

void after_fork_in_child() noexcept {
  count = 0;
  pthread_mutex_unlock(&mutex);
}

}  // namespace ending_threads

}  // namespace aoti
