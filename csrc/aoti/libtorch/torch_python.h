#pragma once

// torch's own way from C++ tensors to Python ones, for a program that has imported torch. DLPack
// does the same but builds two more tensors on the way, which costs as much as the rest of a call.
// The library is looked up, never linked or loaded.
//
// These are functions of AotiEngine: see engine.h.

#include <cstdint>

namespace aoti::libtorch {

int32_t can_make_torch_tensors() noexcept;
void* make_torch_tensor(void* handle) noexcept;

}  // namespace aoti::libtorch
