#pragma once

// Values of inputs that index tables. A kernel that meets one out of range inside an OpenMP region
// aborts the process, so they are checked before it runs.

#include <dlpack/dlpack.h>

#include <cstdint>

namespace aoti {

// Whether all elements of a tensor on the CPU lie in low..high. True for dtypes that do not index.
bool all_within(const DLTensor& tensor, int64_t low, int64_t high) noexcept;

}  // namespace aoti
