// The functions of SLEEF for AVX-512, under the prefix that packages are rewritten to.

#if defined(__x86_64__)

#include <aoti/native/kernels/math/functions.h>
#include <aoti/native/kernels/math/math.h>

// GCC's intrinsics start from a vector that they leave undefined on purpose (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#include <math.h>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

#include <aoti/native/kernels/math/vector_avx512_inl.h>
// After the vectors.
#include <aoti/native/kernels/math/functions_inl.h>

namespace aoti::native {

#define AOTI_MATH_EXPORT extern "C" __attribute__((visibility("default"), flatten))

#define AOTI_MATH_FLOAT(name, suffix) \
  AOTI_MATH_EXPORT __m512 aotis_##name##f16##suffix(__m512 x) { return name(F16(x)).v; }
#define AOTI_MATH_FAST(name, suffix) \
  AOTI_MATH_EXPORT __m512 aotis_##name##f16##suffix(__m512 x) { return name##suffix(F16(x)).v; }
#define AOTI_MATH_DOUBLE(name, suffix) \
  AOTI_MATH_EXPORT __m512d aotis_##name##d8##suffix(__m512d x) { return name(D8(x)).v; }
#define AOTI_MATH_TWO(name, suffix)                                         \
  AOTI_MATH_EXPORT __m512 aotis_##name##f16##suffix(__m512 x, __m512 y) {   \
    return name(F16(x), F16(y)).v;                                          \
  }                                                                         \
  AOTI_MATH_EXPORT __m512d aotis_##name##d8##suffix(__m512d x, __m512d y) { \
    return name(D8(x), D8(y)).v;                                            \
  }

AOTI_MATH_UNARY(AOTI_MATH_FLOAT)
AOTI_MATH_UNARY(AOTI_MATH_DOUBLE)
AOTI_MATH_UNARY_FLOAT(AOTI_MATH_FAST)
AOTI_MATH_BINARY(AOTI_MATH_TWO)

struct TwoF16 {
  __m512 sine;
  __m512 cosine;
};

struct TwoD8 {
  __m512d sine;
  __m512d cosine;
};

AOTI_MATH_EXPORT TwoF16 aotis_sincosf16_u10(__m512 x) { return {sin(F16(x)).v, cos(F16(x)).v}; }
AOTI_MATH_EXPORT TwoD8 aotis_sincosd8_u10(__m512d x) { return {sin(D8(x)).v, cos(D8(x)).v}; }

#define AOTI_MATH_ARRAY(name)                                        \
  __attribute__((flatten)) void name##_array_avx512(                 \
      const float* x, float* y, int64_t n) noexcept {                \
    over_array<F16>(x, y, n, [](F16 lanes) { return name(lanes); }); \
  }
AOTI_MATH_ARRAYS(AOTI_MATH_ARRAY)

}  // namespace aoti::native

#endif
