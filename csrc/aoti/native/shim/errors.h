#pragma once

// Where C++ exceptions end, on their way to compiled code and to the core, and where their texts
// wait.

#include <aoti/engine/engine.h>

#include <cstdint>
#include <string>
#include <utility>

namespace aoti::native {

// Keep the exception that is being handled for `last_error`; the second one as the failure of an
// operator, which compiled code turns into an exception without its text.
int32_t keep_exception() noexcept;
void keep_operator_exception(const char* name) noexcept;

// The text of the last failure of an operator on this thread; empty if none failed since
// `forget_operator_failure`.
const std::string& operator_failure() noexcept;
void forget_operator_failure() noexcept;

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

// The same for a function that compiled code calls: 0, or 1 for a failure of the operator `name`.
template <class Body>
int32_t served(const char* name, Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return 0;
  } catch (...) {
    keep_operator_exception(name);
    return 1;
  }
}

// The text of the calling thread's last failure, valid until its next one.
void last_error(const char** message, const char** detail) noexcept;

}  // namespace aoti::native
