#pragma once

// The only place where C++ exceptions end. Helpers return a Failure instead of throwing, so that
// nothing unwinds through Cython or takes the GIL while one of our locks is held.

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>
#include <utility>

namespace aoti {

enum class Fault : int {
  kNone = 0,
  kClosed,       // the model was closed
  kBusy,         // no runner is free yet
  kRunLost,      // the process was forked while a model ran
  kUnset,        // the model's weights were not loaded
  kThreadsLost,  // a fork took the calling thread's OpenMP threads away
  kMemory,       // std::bad_alloc
  kExecution,    // anything that libtorch or the compiled model threw
};

struct Failure {
  Fault fault = Fault::kNone;
  std::string message;  // for people, without a backtrace
  std::string detail;   // everything the exception had to say
};

namespace detail {

inline Failure describe(Fault fault, const char* message, const char* detail) noexcept {
  try {
    return {fault, message, detail};
  } catch (...) {
    return {Fault::kMemory, {}, {}};  // no memory left to word it: the caller words it
  }
}

}  // namespace detail

// Runs `body` and turns whatever it throws into a Failure. The order matters: derived before base.
template <class Body>
Failure guarded(Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (const c10::Error& error) {
    return detail::describe(Fault::kExecution, error.what_without_backtrace(), error.what());
  } catch (const std::bad_alloc& error) {
    return detail::describe(Fault::kMemory, error.what(), "");
  } catch (const std::exception& error) {
    return detail::describe(Fault::kExecution, error.what(), "");
  } catch (...) {
    return detail::describe(Fault::kExecution, "an exception that is no std::exception", "");
  }
}

}  // namespace aoti
