#pragma once

// Where C++ exceptions end: nothing that libtorch or a compiled model throws crosses the seam.

#include <aoti/engine/engine.h>

#include <cstdint>
#include <utility>

namespace aoti::libtorch {

// Turns the exception that is being handled into an AotiCode, and keeps its text for `last_error`.
int32_t keep_exception() noexcept;

// Runs `body`, which returns nothing, and turns whatever it throws into an AotiCode.
template <class Body>
int32_t guarded(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return AOTI_OK;
  } catch (...) {
    return keep_exception();
  }
}

// The text of the calling thread's last failure, valid until its next one: a message for people,
// without a backtrace; and everything that the exception says, empty if that is the same.
void last_error(const char** message, const char** detail) noexcept;

}  // namespace aoti::libtorch
