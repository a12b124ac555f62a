#include <aoti/engine/gil.h>

#include "expect.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

// Python as far as gil.cpp asks for it: interpreters and threads, each with the next older one.
namespace {

struct Fake {
  Fake* next = nullptr;
};

Fake interpreter, other_interpreter, python_thread, other_thread;
Fake* newest_interpreter = &interpreter;
Fake* newest_thread = &python_thread;

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void* PyInterpreterState_Get() { return &interpreter; }
EXPORTED void* PyInterpreterState_Head() { return newest_interpreter; }
EXPORTED void* PyInterpreterState_Next(void* one) { return static_cast<Fake*>(one)->next; }
EXPORTED void* PyThreadState_Get() { return &python_thread; }
EXPORTED void* PyInterpreterState_ThreadHead(void*) { return newest_thread; }
EXPORTED void* PyThreadState_Next(void* one) { return static_cast<Fake*>(one)->next; }

namespace aoti {

namespace {

using Clock = std::chrono::steady_clock;

void alone() {
  interpreter = other_interpreter = python_thread = other_thread = {};
  newest_interpreter = &interpreter;
  newest_thread = &python_thread;
}

// A run as Python's side makes it; returns whether it kept the GIL.
bool run(GilPolicy& policy, int64_t takes) {
  if (policy.keeps_gil()) {
    return true;
  }
  const int64_t begun = policy.begin();
  policy.end(begun, begun + takes);
  return false;
}

constexpr int64_t kShortRun = 1'000, kLongRun = 1'000'000;

}  // namespace

// -- the hand-over --------------------------------------------------------------------------------

TEST(a_thread_alone_does_not_wait_for_the_gil) {
  const auto begun = Clock::now();
  for (int i = 0; i < 100; ++i) {
    {
      const GilHandover handover;
    }
    EXPECT(GilHandover::taken() > 0);
  }
  EXPECT(Clock::now() - begun < std::chrono::seconds(1));
}

TEST(a_thread_that_never_comes_back_costs_one_short_wait) {
  GilHandover::taken();  // somebody has the GIL and runs nothing
  const auto begun = Clock::now();
  {
    const GilHandover first;
  }
  {
    const GilHandover second;
  }
  {
    const GilHandover third;
  }
  EXPECT(Clock::now() - begun < std::chrono::seconds(1));
}

TEST(threads_hand_the_gil_to_each_other_and_never_wait_for_good) {
  std::mutex gil;
  int runs = 0;  // guarded by the GIL
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 300; ++round) {
        gil.lock();
        ++runs;
        gil.unlock();
        {
          const GilHandover handover;
          std::this_thread::yield();
        }
        gil.lock();
        GilHandover::taken();
        gil.unlock();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(runs, 1200);
}

// -- who else could want the GIL ------------------------------------------------------------------

TEST(a_thread_is_the_only_one_if_python_knows_no_other) {
  alone();
  PythonThreads::look_up();
  EXPECT(PythonThreads::only_this_one());
  newest_thread = &other_thread;
  other_thread.next = &python_thread;
  EXPECT(!PythonThreads::only_this_one());
  alone();
  python_thread.next = &other_thread;
  EXPECT(!PythonThreads::only_this_one());
}

TEST(threads_of_another_interpreter_may_want_the_gil) {
  alone();
  newest_interpreter = &other_interpreter;
  other_interpreter.next = &interpreter;
  EXPECT(!PythonThreads::only_this_one());
  alone();
  interpreter.next = &other_interpreter;
  EXPECT(!PythonThreads::only_this_one());
}

// -- which runs keep the GIL ----------------------------------------------------------------------

TEST(the_first_run_gives_up_the_gil_and_is_timed) {
  alone();
  GilPolicy policy;
  EXPECT(!policy.keeps_gil());
  EXPECT(policy.begin() != 0);
}

TEST(short_runs_keep_the_gil_and_one_in_32_does_not) {
  alone();
  GilPolicy policy;
  for (int round = 0; round < 3; ++round) {
    EXPECT(!run(policy, kShortRun));
    for (int i = 1; i < 32; ++i) {
      EXPECT(run(policy, kShortRun));
    }
  }
}

TEST(long_runs_give_up_the_gil_until_a_short_one_was_timed) {
  alone();
  GilPolicy policy;
  for (int i = 0; i < 32; ++i) {
    EXPECT(!run(policy, kLongRun));
  }
  EXPECT(!run(policy, kShortRun));  // the 33rd is timed
  EXPECT(run(policy, kShortRun));
}

TEST(runs_that_are_not_timed_decide_nothing) {
  alone();
  GilPolicy policy;
  EXPECT(!run(policy, kLongRun));
  EXPECT(!policy.keeps_gil());
  EXPECT_EQ(policy.begin(), 0);
  policy.end(0, 1);
  EXPECT(!policy.keeps_gil());
}

TEST(short_runs_give_up_the_gil_where_there_are_other_threads) {
  alone();
  GilPolicy policy;
  EXPECT(!run(policy, kShortRun));
  python_thread.next = &other_thread;
  EXPECT(!run(policy, kShortRun));
  alone();
  EXPECT(run(policy, kShortRun));
}

}  // namespace aoti
