#include <aoti/engine/runner_pool.h>
#include <aoti/engine/weight_set.h>

#include "expect.h"
#include "fake_engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace aoti {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

std::shared_ptr<WeightSet> make_weights(uint64_t number = 1) {
  AotiOpenOptions options{};
  options.path = options.model_name = "";
  AotiContainer* container = nullptr;
  EXPECT_EQ(fake::engine().open(&options, &container), AOTI_OK);
  return std::make_shared<WeightSet>(fake::engine(), container, number);
}

// A runner that was taken without a scope.
struct Taken {
  std::shared_ptr<WeightSet> weights;
  std::size_t runner = 99;
  Grant grant;

  explicit Taken(RunnerPool& pool) : grant(pool.acquire(weights, runner)) {}
};

bool is_granted(RunnerPool& pool) { return RunnerLease(pool).grant() == Grant::kGranted; }

}  // namespace

TEST(every_run_has_a_runner_to_itself) {
  const fake::Fresh fresh;
  RunnerPool pool(3);
  REQUIRE(pool.serve(make_weights()));
  const RunnerLease first(pool), second(pool), third(pool);
  EXPECT_EQ(first.grant(), Grant::kGranted);
  EXPECT_EQ(third.grant(), Grant::kGranted);
  EXPECT_EQ(first.runner(), 0);
  EXPECT_EQ(second.runner(), 1);
  EXPECT_EQ(third.runner(), 2);
}

TEST(the_runner_that_was_in_use_last_comes_first) {
  const fake::Fresh fresh;
  RunnerPool pool(3);
  REQUIRE(pool.serve(make_weights()));
  Taken first(pool), second(pool);
  pool.release(std::move(second.weights), second.runner);
  pool.release(std::move(first.weights), first.runner);
  EXPECT_EQ(RunnerLease(pool).runner(), first.runner);
}

TEST(a_pool_that_is_busy_says_so_before_a_signal_waits_too_long) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  REQUIRE(pool.serve(make_weights()));
  const RunnerLease lease(pool);
  auto least = Clock::duration::max();
  for (int round = 0; round < 5; ++round) {  // one of them is not held up by other processes
    const auto begun = Clock::now();
    const Taken refused(pool);
    least = std::min(least, Clock::now() - begun);
    EXPECT_EQ(refused.grant, Grant::kBusy);
    EXPECT(refused.weights == nullptr);
  }
  EXPECT(least > milliseconds(20));
  EXPECT(least < milliseconds(200));
}

TEST(who_waits_gets_the_runner_that_comes_back) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  REQUIRE(pool.serve(make_weights()));
  Taken taken(pool);
  std::thread waiting([&] {
    Grant grant = Grant::kBusy;
    while (grant == Grant::kBusy) {
      grant = RunnerLease(pool).grant();
    }
    EXPECT_EQ(grant, Grant::kGranted);
  });
  std::this_thread::sleep_for(milliseconds(10));
  pool.release(std::move(taken.weights), taken.runner);
  waiting.join();
  EXPECT(is_granted(pool));
}

TEST(without_weights_nothing_runs) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  EXPECT_EQ(Taken(pool).grant, Grant::kUnset);
  REQUIRE(pool.serve(make_weights()));
  EXPECT(is_granted(pool));
}

// -- serving other weights ------------------------------------------------------------------------

TEST(a_run_ends_on_the_weights_that_it_began_with_and_frees_them) {
  const fake::Fresh fresh;
  RunnerPool pool(2);
  REQUIRE(pool.serve(make_weights(1)));
  {
    const RunnerLease before(pool);
    REQUIRE(pool.serve(make_weights(2)));
    const RunnerLease after(pool);
    EXPECT_EQ(before.weights().number, 1);
    EXPECT_EQ(after.weights().number, 2);
    EXPECT_EQ(fake::counts.containers, 2);
  }
  EXPECT_EQ(fake::counts.containers, 1);
  EXPECT_EQ(RunnerLease(pool).weights().number, 2);
}

TEST(weights_that_nothing_runs_on_are_freed_when_others_are_served) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  REQUIRE(pool.serve(make_weights(1)));
  REQUIRE(pool.serve(make_weights(2)));
  EXPECT_EQ(fake::counts.containers, 1);
}

TEST(weights_are_freed_with_their_pool) {
  const fake::Fresh fresh;
  {
    RunnerPool pool(1);
    REQUIRE(pool.serve(make_weights()));
  }
  EXPECT_EQ(fake::counts.containers, 0);
}

// -- closing --------------------------------------------------------------------------------------

TEST(close_waits_for_the_runs_and_frees_the_weights) {
  const fake::Fresh fresh;
  RunnerPool pool(2);
  REQUIRE(pool.serve(make_weights()));
  Taken first(pool), second(pool);
  std::atomic<bool> closed{false};
  std::thread closing([&] {
    pool.close();
    closed = true;
  });
  while (Taken(pool).grant == Grant::kBusy) {  // until it has begun
  }
  pool.release(std::move(first.weights), first.runner);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT(!closed);
  pool.release(std::move(second.weights), second.runner);
  closing.join();
  EXPECT(closed);
  EXPECT_EQ(fake::counts.containers, 0);
}

TEST(who_waits_is_turned_away_when_the_pool_is_closed) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  REQUIRE(pool.serve(make_weights()));
  Taken taken(pool);
  std::thread waiting([&] {
    Grant grant = Grant::kBusy;
    while (grant == Grant::kBusy) {
      grant = RunnerLease(pool).grant();
    }
    EXPECT_EQ(grant, Grant::kClosed);
  });
  std::thread closing([&] { pool.close(); });
  waiting.join();  // while the run is still under way
  pool.release(std::move(taken.weights), taken.runner);
  closing.join();
}

TEST(who_waits_is_turned_away_at_once) {
  const fake::Fresh fresh;
  auto least = Clock::duration::max();
  for (int round = 0; round < 5; ++round) {  // one of them is not held up by other processes
    RunnerPool pool(1);
    REQUIRE(pool.serve(make_weights()));
    Taken taken(pool);
    std::thread waiting([&] { EXPECT(Taken(pool).grant != Grant::kGranted); });
    std::this_thread::sleep_for(milliseconds(2));
    std::thread closing([&] { pool.close(); });
    const auto begun = Clock::now();
    waiting.join();
    least = std::min(least, Clock::now() - begun);
    pool.release(std::move(taken.weights), taken.runner);
    closing.join();
  }
  EXPECT(least < milliseconds(30));
}

TEST(a_closed_pool_stays_closed) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  REQUIRE(pool.serve(make_weights()));
  pool.close();
  pool.close();
  EXPECT_EQ(Taken(pool).grant, Grant::kClosed);
  EXPECT(!pool.serve(make_weights(2)));
  EXPECT_EQ(fake::counts.containers, 0);
}

TEST(several_threads_may_close) {
  const fake::Fresh fresh;
  RunnerPool pool(1);
  REQUIRE(pool.serve(make_weights()));
  Taken taken(pool);
  std::thread first([&] { pool.close(); }), second([&] { pool.close(); });
  std::this_thread::sleep_for(milliseconds(5));
  pool.release(std::move(taken.weights), taken.runner);
  first.join();
  second.join();
}

// -- many threads ---------------------------------------------------------------------------------

TEST(many_threads_share_runners_while_weights_are_swapped) {
  const fake::Fresh fresh;
  constexpr int kRunners = 3;
  RunnerPool pool(kRunners);
  REQUIRE(pool.serve(make_weights(1)));
  int runs[kRunners] = {};  // not atomic: a runner is one thread's at a time
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      Grant grant = Grant::kBusy;
      while (grant != Grant::kClosed) {
        const RunnerLease lease(pool);
        grant = lease.grant();
        if (grant == Grant::kGranted) {
          EXPECT(lease.weights().number >= 1);
          ++runs[lease.runner()];
          ++granted;
        }
      }
    });
  }
  for (uint64_t number = 2; number < 100; ++number) {
    EXPECT(pool.serve(make_weights(number)));
    std::this_thread::yield();
  }
  while (granted < 500) {
    std::this_thread::yield();
  }
  pool.close();
  const int total = granted;
  EXPECT_EQ(runs[0] + runs[1] + runs[2], total);  // nothing runs after close()
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(granted, total);
}

TEST(pools_come_and_go_on_many_threads) {
  const fake::Fresh fresh;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int round = 0; round < 50; ++round) {
        RunnerPool first(1), second(2);
        EXPECT(second.serve(make_weights()));
        EXPECT(is_granted(second));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace aoti
