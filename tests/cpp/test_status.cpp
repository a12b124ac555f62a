#include <aoti/core/status.h>

#include "expect.h"

#include <new>
#include <stdexcept>

namespace aoti {

TEST(what_a_body_returns_is_the_status) {
  EXPECT_OK(catch_all([]() -> Status { return {}; }));
  const Status status =
      catch_all([]() -> Status { return failed(StatusCode::kBusy, "message", "detail"); });
  EXPECT_EQ(status.code, StatusCode::kBusy);
  EXPECT_EQ(status.message, "message");
  EXPECT_EQ(status.detail, "detail");
}

TEST(what_a_body_throws_becomes_a_status) {
  const Status memory = catch_all([]() -> Status { throw std::bad_alloc(); });
  EXPECT_EQ(memory.code, StatusCode::kNoMemory);
  const Status error = catch_all([]() -> Status { throw std::runtime_error("why"); });
  EXPECT_EQ(error.code, StatusCode::kExecution);
  EXPECT_EQ(error.message, "why");
  const Status other = catch_all([]() -> Status { throw 1; });
  EXPECT_EQ(other.code, StatusCode::kExecution);
  EXPECT(!other.message.empty());
}

}  // namespace aoti
