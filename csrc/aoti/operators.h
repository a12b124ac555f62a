#pragma once

// Which operators the process knows: libtorch's own, and those of libraries loaded beside it.

#include <aoti/errors.h>

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>

namespace aoti {

// Whether an operator has a schema, which is what libtorch's proxy executor asks for before it
// calls one. `name` has its namespace: "aten::add", with the overload apart: "Tensor" or "".
inline Failure has_operator(
    const std::string& name, const std::string& overload, bool& found) noexcept {
  return guarded([&]() -> Failure {
    found = c10::Dispatcher::singleton().findSchema({name, overload}).has_value();
    return {};
  });
}

}  // namespace aoti
