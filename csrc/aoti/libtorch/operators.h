#pragma once

// The operators that this process has: libtorch's own, and those of libraries loaded beside it.

#include <cstdint>

namespace aoti::libtorch {

// AotiEngine::has_operator. Whether an operator has a schema, which is what libtorch's proxy
// executor asks for before it calls one. `name` has its namespace, "aten::add"; the overload, such
// as "Tensor", may be empty.
int32_t has_operator(const char* name, const char* overload) noexcept;

}  // namespace aoti::libtorch
