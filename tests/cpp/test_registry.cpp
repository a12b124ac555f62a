#include <aoti/engine/registry.h>

#include "expect.h"
#include "fake_engine.h"

#include <thread>
#include <vector>

// In the order in which the tests are written: engines stay until the process ends.
namespace aoti {

namespace {

std::vector<const AotiEngine*> known() {
  std::vector<const AotiEngine*> engines;
  for_each_engine(
      [](const AotiEngine& engine, void* visitor) {
        static_cast<std::vector<const AotiEngine*>*>(visitor)->push_back(&engine);
      },
      &engines);
  return engines;
}

AotiEngine others[16];

}  // namespace

TEST(at_first_there_is_no_engine) {
  EXPECT_EQ(known().size(), 0);
  EXPECT(device_engine() == nullptr);
}

TEST(an_engine_for_another_version_of_the_seam_is_refused) {
  static AotiEngine other = fake::engine();
  other.version = AOTI_ENGINE_VERSION + 1;
  const Status status = add_engine(&other);
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT(status.message.find("another version") != std::string::npos);
  other = fake::engine();
  other.struct_size = sizeof(AotiEngine) - 1;
  EXPECT_EQ(add_engine(&other).code, StatusCode::kExecution);
  EXPECT_EQ(known().size(), 0);
}

TEST(an_engine_is_known_once_however_often_it_is_added) {
  REQUIRE_OK(add_engine(&fake::engine()));
  REQUIRE_OK(add_engine(&fake::engine()));
  EXPECT_EQ(known().size(), 1);
  EXPECT(known()[0] == &fake::engine());
  EXPECT(device_engine() == nullptr);
}

TEST(an_engine_may_be_larger_than_is_known_of_it) {
  others[0] = fake::engine_with_devices();
  others[0].struct_size += 8;
  REQUIRE_OK(add_engine(&others[0]));
  EXPECT(device_engine() == &others[0]);
}

TEST(the_first_engine_with_devices_stays_the_one_that_is_asked) {
  REQUIRE_OK(add_engine(&fake::engine_with_devices()));
  EXPECT_EQ(known().size(), 3);
  EXPECT(device_engine() == &others[0]);
}

TEST(engines_are_added_while_others_are_visited) {
  std::vector<std::thread> threads;
  for (int i = 1; i <= 3; ++i) {
    others[i] = fake::engine();
    threads.emplace_back([i] { EXPECT_OK(add_engine(&others[i])); });
    threads.emplace_back([] {
      for (int round = 0; round < 100; ++round) {
        for (const AotiEngine* engine : known()) {
          EXPECT_EQ(engine->version, AOTI_ENGINE_VERSION);
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(known().size(), 6);
}

TEST(there_is_room_for_a_few_engines) {
  Status status;
  for (int i = 4; i < 16 && status.ok(); ++i) {
    others[i] = fake::engine();
    status = add_engine(&others[i]);
  }
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT_EQ(known().size(), 8);
  EXPECT_OK(add_engine(&fake::engine()));
}

TEST(a_failure_of_an_engine_is_a_status_with_its_texts) {
  const fake::Fresh fresh;
  double sum = 0;
  const AotiEngine& engine = fake::engine_with_devices();
  fake::fail_next("check", AOTI_FAILED, "message", "detail");
  Status status = engine_status(engine, engine.devices->check("fake", 1, &sum));
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT_EQ(status.message, "message");
  EXPECT_EQ(status.detail, "detail");
  fake::fail_next("check", AOTI_OUT_OF_MEMORY, "memory", "");
  status = engine_status(engine, engine.devices->check("fake", 1, &sum));
  EXPECT_EQ(status.code, StatusCode::kNoMemory);
  EXPECT_EQ(status.message, "memory");
  EXPECT_OK(engine_status(engine, engine.devices->check("fake", 1, &sum)));
}

}  // namespace aoti
