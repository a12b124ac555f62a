#include <aoti/engine/openmp.h>
#include <aoti/engine/registry.h>

#include "expect.h"
#include "fake_engine.h"

#include <thread>

namespace aoti {

TEST(a_number_of_threads_holds_for_one_scope) {
  const fake::Fresh fresh;
  {
    const ThreadCount count(fake::engine(), 2);
    EXPECT_EQ(count.code(), AOTI_OK);
    EXPECT_EQ(fake::threads, 2);
    {
      const ThreadCount inner(fake::engine(), 1);
      EXPECT_EQ(fake::threads, 1);
    }
    EXPECT_EQ(fake::threads, 2);
  }
  EXPECT_EQ(fake::threads, 4);
}

TEST(other_threads_keep_their_number) {
  const fake::Fresh fresh;
  const ThreadCount count(fake::engine(), 2);
  std::thread([] { EXPECT_EQ(fake::threads, 4); }).join();
}

TEST(zero_and_the_number_that_is_set_change_nothing) {
  const fake::Fresh fresh;
  fake::fail_next("set_num_threads", AOTI_FAILED, "not to be called", "");
  const ThreadCount any(fake::engine(), 0), same(fake::engine(), 4);
  EXPECT_EQ(any.code(), AOTI_OK);
  EXPECT_EQ(same.code(), AOTI_OK);
  EXPECT_EQ(fake::threads, 4);
}

TEST(a_number_that_cannot_be_set_is_reported_and_not_restored) {
  const fake::Fresh fresh;
  {
    fake::fail_next("set_num_threads", AOTI_FAILED, "message", "");
    const ThreadCount count(fake::engine(), 2);
    EXPECT_EQ(count.code(), AOTI_FAILED);
    fake::fail_next("set_num_threads", AOTI_FAILED, "not to be called", "");
  }
  EXPECT_EQ(fake::threads, 4);
}

TEST(a_team_is_dismissed_by_every_engine) {
  const fake::Fresh fresh;
  REQUIRE_OK(add_engine(&fake::engine()));
  REQUIRE_OK(add_engine(&fake::engine_with_devices()));
  ThreadTeam& team = ThreadTeam::mine();
  team.started = true;
  fake::settings.pause_fails = true;
  EXPECT(!team.dismiss());
  EXPECT(team.started);
  EXPECT_EQ(fake::counts.pauses, 2);
  fake::settings.pause_fails = false;
  EXPECT(team.dismiss());
  EXPECT(!team.started);
  fake::settings.pause_fails = true;
  EXPECT(team.dismiss());  // there is none
}

TEST(a_thread_that_ends_dismisses_its_team_once) {
  const fake::Fresh fresh;
  REQUIRE_OK(add_engine(&fake::engine()));
  const auto pauses_of = [](bool started, bool lost) {
    const int before = fake::counts.pauses;
    std::thread([=] {
      ThreadTeam::mine().started = started;
      ThreadTeam::mine().lost = lost;
    }).join();
    return fake::counts.pauses - before;
  };
  EXPECT(pauses_of(true, false) > 0);
  EXPECT_EQ(pauses_of(false, false), 0);
  EXPECT_EQ(pauses_of(true, true), 0);  // it would wait for threads that are not there
}

TEST(every_thread_has_its_own_team) {
  ThreadTeam::mine().started = true;
  std::thread([] { EXPECT(!ThreadTeam::mine().started); }).join();
  ThreadTeam::mine().started = false;
}

}  // namespace aoti
