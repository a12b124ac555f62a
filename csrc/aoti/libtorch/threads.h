#pragma once

// The threads of OpenMP's parallel regions, in libtorch's operators and in the kernels of packages.
//
// These are functions of AotiEngine: see engine.h.

#include <cstdint>

namespace aoti::libtorch {

int32_t get_num_threads() noexcept;
int32_t set_num_threads(int32_t count) noexcept;
int32_t pause_threads() noexcept;

}  // namespace aoti::libtorch
