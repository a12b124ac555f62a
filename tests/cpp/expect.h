#pragma once

// Just enough to state what a test expects:
//
//   TEST(a_copy_shares_the_memory) {
//     EXPECT_EQ(copy.data(), tensor.data());
//   }
//
// A test goes on after an expectation that fails; REQUIRE ends it. main.cpp runs the tests of one
// file at a time, in a process of its own. Expectations may be stated on any thread.

#include <aoti/core/status.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <type_traits>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define AOTI_SANITIZED 1  // among other things, memory that cannot be had ends the process
#else
#define AOTI_SANITIZED 0
#endif

namespace expect {

struct Test {
  const char* file;
  const char* name;
  void (*body)();
  Test* next;
};

inline Test* first = nullptr;
inline Test** last = &first;
inline std::atomic<int> failures{0};

struct Registration {
  Test test;

  Registration(const char* file, const char* name, void (*body)()) : test{file, name, body, {}} {
    *last = &test;
    last = &test.next;
  }
};

struct Stop {};  // thrown by REQUIRE

template <class Value>
std::string show(const Value& value) {
  if constexpr (std::is_same_v<Value, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<Value>) {
    return std::to_string(static_cast<long long>(value));
  } else if constexpr (std::is_floating_point_v<Value>) {
    return std::to_string(value);
  } else if constexpr (std::is_convertible_v<Value, long long>) {
    return std::to_string(static_cast<long long>(value));
  } else if constexpr (std::is_convertible_v<Value, std::string>) {
    return '"' + std::string(value) + '"';
  } else if constexpr (std::is_pointer_v<Value>) {
    char text[32];
    std::snprintf(text, sizeof text, "%p", reinterpret_cast<const void*>(value));
    return text;
  } else {
    return "?";
  }
}

inline bool fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  ++failures;
  return false;
}

template <class Got, class Wanted>
bool equal(const char* file, int line, const char* text, const Got& got, const Wanted& wanted) {
  if constexpr (std::is_convertible_v<Got, long long> && std::is_integral_v<Wanted>) {
    // Not by type: an atomic counter and a size are numbers, too.
    if (static_cast<long long>(got) == static_cast<long long>(wanted)) {
      return true;
    }
  } else if (got == wanted) {
    return true;
  }
  return fail(file, line, std::string(text) + " is " + show(got) + ", expected " + show(wanted));
}

inline bool ok(const char* file, int line, const char* text, const aoti::Status& status) {
  return status.ok() || fail(file, line, std::string(text) + " failed: " + status.message);
}

// Whether `body`, which returns whether all is well, does so in a forked child. A child that does
// not end is killed, by its alarm.
template <class Body>
bool in_child(Body&& body) {
  std::fflush(stderr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const int before = failures;
    const bool well = body();
    _exit(well && failures == before ? 0 : 1);
  }
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

}  // namespace expect

#define TEST(name)                                                                   \
  static void test_##name();                                                         \
  static const expect::Registration registered_##name(__FILE__, #name, test_##name); \
  static void test_##name()

#define EXPECT(condition) ((condition) || expect::fail(__FILE__, __LINE__, "not so: " #condition))
#define EXPECT_EQ(got, wanted) expect::equal(__FILE__, __LINE__, #got, (got), (wanted))
#define EXPECT_OK(status) expect::ok(__FILE__, __LINE__, #status, (status))
#define REQUIRE(condition)    \
  do {                        \
    if (!EXPECT(condition)) { \
      throw expect::Stop{};   \
    }                         \
  } while (false)
#define REQUIRE_OK(status)    \
  do {                        \
    if (!EXPECT_OK(status)) { \
      throw expect::Stop{};   \
    }                         \
  } while (false)
