// Products by AVX-512.

#if defined(__x86_64__)

#include <aoti/native/kernels/gemm/gemm_kernels.h>

#include <immintrin.h>

#include <algorithm>
#include <utility>

// After the headers: what they define must run on any CPU.
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

namespace aoti::native {

namespace {

using Vector = __m512;
using Mask = __mmask16;

constexpr int64_t kWidth = 16;
constexpr int kRows = 14;  // with 2 vectors of b and one element of a, 31 of 32 registers
constexpr int kVectors = 2;
constexpr int kThreeRows = 9;
constexpr int kFourRows = 6;
constexpr int kDotRows = 4;
constexpr int kDotColumns = 4;

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector splat(float value) { return _mm512_set1_ps(value); }
inline Vector load(const float* from) { return _mm512_loadu_ps(from); }
inline Vector load(const float* from, Mask mask) { return _mm512_maskz_loadu_ps(mask, from); }
inline void store(float* to, Vector vector) { _mm512_storeu_ps(to, vector); }
inline void store(float* to, Vector vector, Mask mask) { _mm512_mask_storeu_ps(to, mask, vector); }
inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Mask first_lanes(int64_t lanes) { return static_cast<Mask>((1u << lanes) - 1); }

#include <aoti/native/kernels/gemm/avx.h>

inline float add_lanes(Vector vector) {
  // Not by _mm512_castps512_ps256, of which gcc 12 says that it uses what is uninitialized.
  const __m256 low = _mm512_maskz_extractf32x8_ps(0xff, vector, 0);
  return add_8_lanes(_mm256_add_ps(low, _mm512_maskz_extractf32x8_ps(0xff, vector, 1)));
}

#include <aoti/native/kernels/gemm/loops.h>

}  // namespace

const GemmKernels avx512_gemm_kernels = {
    kRows, kVectors * kWidth, kWidth, tiles, dot, dots, sweep, pack, transpose};

}  // namespace aoti::native

#endif
