// The functions of SLEEF for AVX2, under the prefix that packages are rewritten to.

#if defined(__x86_64__)

#include <aoti/native/kernels/math/functions.h>
#include <aoti/native/kernels/math/math.h>

#include <immintrin.h>
#include <math.h>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#pragma GCC target("avx2,fma,f16c")

#include <aoti/native/kernels/math/vector_avx2_inl.h>
// After the vectors.
#include <aoti/native/kernels/math/functions_inl.h>

namespace aoti::native {

#define AOTI_MATH_EXPORT extern "C" __attribute__((visibility("default"), flatten))

#define AOTI_MATH_FLOAT(name, suffix) \
  AOTI_MATH_EXPORT __m256 aotis_##name##f8##suffix(__m256 x) { return name(F8(x)).v; }
#define AOTI_MATH_FAST(name, suffix) \
  AOTI_MATH_EXPORT __m256 aotis_##name##f8##suffix(__m256 x) { return name##suffix(F8(x)).v; }
#define AOTI_MATH_DOUBLE(name, suffix) \
  AOTI_MATH_EXPORT __m256d aotis_##name##d4##suffix(__m256d x) { return name(D4(x)).v; }
#define AOTI_MATH_TWO(name, suffix)                                         \
  AOTI_MATH_EXPORT __m256 aotis_##name##f8##suffix(__m256 x, __m256 y) {    \
    return name(F8(x), F8(y)).v;                                            \
  }                                                                         \
  AOTI_MATH_EXPORT __m256d aotis_##name##d4##suffix(__m256d x, __m256d y) { \
    return name(D4(x), D4(y)).v;                                            \
  }

AOTI_MATH_UNARY(AOTI_MATH_FLOAT)
AOTI_MATH_UNARY(AOTI_MATH_DOUBLE)
AOTI_MATH_UNARY_FLOAT(AOTI_MATH_FAST)
AOTI_MATH_BINARY(AOTI_MATH_TWO)

struct TwoF8 {
  __m256 sine;
  __m256 cosine;
};

struct TwoD4 {
  __m256d sine;
  __m256d cosine;
};

AOTI_MATH_EXPORT TwoF8 aotis_sincosf8_u10(__m256 x) { return {sin(F8(x)).v, cos(F8(x)).v}; }
AOTI_MATH_EXPORT TwoD4 aotis_sincosd4_u10(__m256d x) { return {sin(D4(x)).v, cos(D4(x)).v}; }

#define AOTI_MATH_ARRAY(name)                                                                     \
  __attribute__((flatten)) void name##_array_avx2(const float* x, float* y, int64_t n) noexcept { \
    over_array<F8>(x, y, n, [](F8 lanes) { return name(lanes); });                                \
  }
AOTI_MATH_ARRAYS(AOTI_MATH_ARRAY)

}  // namespace aoti::native

#endif
