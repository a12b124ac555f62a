#pragma once

// The result of a C++ operation. Functions return a Status instead of throwing, so that no
// exception unwinds through Cython and none of our locks is held while somebody waits for the GIL.

#include <exception>
#include <new>
#include <string>
#include <utility>

namespace aoti {

enum class StatusCode : int {
  kOk = 0,
  kClosed,       // the model was closed
  kBusy,         // no runner is free yet
  kRunLost,      // the process was forked while a model ran
  kUnset,        // the model has no weights yet
  kThreadsLost,  // a fork took the calling thread's OpenMP threads away
  kNoMemory,
  kExecution,  // the engine, the compiled model or a system call failed
};

struct Status {
  StatusCode code = StatusCode::kOk;
  std::string message;  // for people, without a backtrace
  std::string detail;   // everything that the failure had to say

  bool ok() const noexcept { return code == StatusCode::kOk; }
};

// A Status with these texts; kNoMemory if there is no memory for them.
inline Status failed(StatusCode code, const char* message, const char* detail = "") noexcept {
  try {
    return {code, message, detail};
  } catch (...) {
    return {StatusCode::kNoMemory, {}, {}};
  }
}

// Runs `body`, which returns a Status, and turns whatever it throws into one.
template <class Body>
Status catch_all(Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (const std::bad_alloc& error) {
    return failed(StatusCode::kNoMemory, error.what());
  } catch (const std::exception& error) {
    return failed(StatusCode::kExecution, error.what());
  } catch (...) {
    return failed(StatusCode::kExecution, "an exception that is not a std::exception");
  }
}

}  // namespace aoti
