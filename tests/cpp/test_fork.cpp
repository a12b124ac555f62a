#include <aoti/engine/fork.h>
#include <aoti/engine/openmp.h>
#include <aoti/engine/program.h>
#include <aoti/engine/registry.h>
#include <aoti/engine/runner_pool.h>

#include "expect.h"
#include "fake_engine.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace aoti {

namespace {

using std::chrono::milliseconds;

// A program that is ready to run, on an engine that is known, in a process that may be forked.
class Served {
 public:
  explicit Served(std::size_t num_runners = 1)
      : program(fake::engine(), "", "", num_runners, kCpu, 0) {
    REQUIRE_OK(add_engine(&fake::engine()));
    std::shared_ptr<WeightSet> weights;
    REQUIRE_OK(program.open(1, false, weights));
    REQUIRE(program.serve(std::move(weights)));
  }

  StatusCode run() {
    Run run;
    return program.run(run).code;
  }

  Program program;
};

// A thread that is in the middle of a run as long as this lives.
class RunUnderWay {
 public:
  explicit RunUnderWay(Served& served) {
    fake::settings.during_run = [this](std::size_t) {
      began_ = true;
      while (!done_) {
        std::this_thread::yield();
      }
    };
    thread_ = std::thread([&] { EXPECT_EQ(served.run(), StatusCode::kOk); });
    while (!began_) {
      std::this_thread::yield();
    }
  }
  ~RunUnderWay() {
    done_ = true;
    thread_.join();
    fake::settings.during_run = nullptr;
  }
  RunUnderWay(const RunUnderWay&) = delete;
  RunUnderWay& operator=(const RunUnderWay&) = delete;

 private:
  std::atomic<bool> began_{false};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace

TEST(a_child_of_an_idle_process_runs) {
  const fake::Fresh fresh;
  Served served;
  EXPECT_EQ(served.run(), StatusCode::kOk);
  EXPECT(expect::in_child([&] { return served.run() == StatusCode::kOk; }));
  EXPECT_EQ(served.run(), StatusCode::kOk);
}

TEST(threads_of_a_child_wait_for_runners) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  Served served;
  REQUIRE(pool.serve([&] {
    std::shared_ptr<WeightSet> weights;
    EXPECT_OK(served.program.open(1, false, weights));
    return weights;
  }()));
  EXPECT(expect::in_child([&] {
    std::optional<RunnerLease> lease(pool);
    std::thread waiting([&] {
      Grant grant = Grant::kBusy;
      while (grant == Grant::kBusy) {
        grant = RunnerLease(pool).grant();
      }
      EXPECT_EQ(grant, Grant::kGranted);
    });
    std::this_thread::sleep_for(milliseconds(5));
    lease.reset();
    waiting.join();
    pool.close();
    return true;
  }));
}

TEST(a_child_that_was_forked_in_the_middle_of_a_run_does_not_run) {
  const fake::Fresh fresh;
  Served served(2), other;
  {
    const RunUnderWay run(served);
    EXPECT(expect::in_child([&] {
      // Not even another model: the run may have held locks that all models need.
      EXPECT_EQ(served.run(), StatusCode::kRunLost);
      EXPECT_EQ(other.run(), StatusCode::kRunLost);
      EXPECT_EQ(fake::counts.runs, 1);
      served.program.close();  // does not wait for the run, which never comes back
      other.program.close();
      EXPECT_EQ(served.run(), StatusCode::kClosed);
      return expect::in_child([&] { return other.run() == StatusCode::kClosed; });
    }));
  }
  EXPECT_EQ(served.run(), StatusCode::kOk);
  EXPECT_EQ(other.run(), StatusCode::kOk);
}

TEST(a_grandchild_does_not_run_either) {
  const fake::Fresh fresh;
  Served served(2);
  const RunUnderWay run(served);
  EXPECT(expect::in_child([&] {
    return expect::in_child([&] { return served.run() == StatusCode::kRunLost; });
  }));
}

TEST(a_fork_waits_while_a_model_is_made) {
  const fake::Fresh fresh;
  Served served;
  std::atomic<bool> making{false}, made{false};
  std::thread thread([&] {
    const std::lock_guard<std::mutex> lock(construction_mutex());
    making = true;
    std::this_thread::sleep_for(milliseconds(20));
    made = true;
  });
  while (!making) {
    std::this_thread::yield();
  }
  EXPECT(expect::in_child([&] {
    const std::lock_guard<std::mutex> lock(construction_mutex());
    return made.load();
  }));
  thread.join();
}

// -- the forking thread's OpenMP team -------------------------------------------------------------

TEST(a_fork_dismisses_the_threads_of_the_forking_thread) {
  const fake::Fresh fresh;
  Served served;
  EXPECT_EQ(served.run(), StatusCode::kOk);
  EXPECT(ThreadTeam::mine().started);
  EXPECT(expect::in_child([] { return !ThreadTeam::mine().started && !ThreadTeam::mine().lost; }));
  EXPECT_EQ(fake::counts.pauses, 1);
  EXPECT(!ThreadTeam::mine().started);
  EXPECT_EQ(served.run(), StatusCode::kOk);
}

TEST(a_child_whose_threads_were_not_dismissed_does_not_run_on_the_forking_thread) {
  const fake::Fresh fresh;
  Served served;
  fake::settings.pause_fails = true;
  EXPECT_EQ(served.run(), StatusCode::kOk);
  EXPECT(expect::in_child([&] {
    EXPECT_EQ(served.run(), StatusCode::kThreadsLost);
    std::thread other([&] { EXPECT_EQ(served.run(), StatusCode::kOk); });
    other.join();
    return true;
  }));
  EXPECT_EQ(served.run(), StatusCode::kOk);  // the parent has its threads still
}

TEST(a_thread_that_ran_nothing_has_no_threads_to_lose) {
  const fake::Fresh fresh;
  Served served;
  fake::settings.pause_fails = true;
  std::thread([&] {
    EXPECT(expect::in_child([&] { return served.run() == StatusCode::kOk; }));
  }).join();
}

TEST(a_fork_waits_for_threads_that_are_ending) {
  const fake::Fresh fresh;
  Served served;
  static std::atomic<bool> ending{false}, ended{false};
  struct Last {
    ~Last() {
      ending = true;
      std::this_thread::sleep_for(milliseconds(20));
      ended = true;
    }
  };
  std::thread thread([&] {
    static thread_local Last last;  // made before the team, so that it goes after it
    static_cast<void>(&last);
    EXPECT_EQ(served.run(), StatusCode::kOk);
  });
  while (!ending) {
    std::this_thread::yield();
  }
  EXPECT(expect::in_child([] { return ended.load(); }));
  thread.join();
  EXPECT_EQ(fake::counts.pauses, 2);  // of the thread that ended, and of the one that forked
}

TEST(threads_that_run_and_end_do_not_hold_up_forks) {
  const fake::Fresh fresh;
  Served served(2);
  std::atomic<bool> stop{false};
  std::thread threads([&] {
    while (!stop) {
      std::thread([] { ThreadTeam::mine().started = true; }).join();
    }
  });
  for (int i = 0; i < 5; ++i) {
    EXPECT(expect::in_child([&] { return served.run() == StatusCode::kOk; }));
  }
  stop = true;
  threads.join();
}

}  // namespace aoti
