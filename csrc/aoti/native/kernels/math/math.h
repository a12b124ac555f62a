#pragma once

// Mathematics over arrays of float, by the instructions that isa() says: y[i] = f(x[i]); x and y
// may be the same. A kernel that has such instructions as its own target can have the functions of
// vectors instead: functions_inl.h.

#include <cstdint>

#define AOTI_MATH_ARRAYS(FUNCTION) \
  FUNCTION(erf)                    \
  FUNCTION(exp)                    \
  FUNCTION(log)                    \
  FUNCTION(tanh)

namespace aoti::native {

#define AOTI_MATH_DECLARE(name)                                         \
  void name##_array(const float* x, float* y, int64_t n) noexcept;      \
  void name##_array_avx2(const float* x, float* y, int64_t n) noexcept; \
  void name##_array_avx512(const float* x, float* y, int64_t n) noexcept;
AOTI_MATH_ARRAYS(AOTI_MATH_DECLARE)
#undef AOTI_MATH_DECLARE

}  // namespace aoti::native
