// Products by AVX2 and FMA.

#if defined(__x86_64__)

#include <aoti/native/kernels/gemm/gemm_kernels.h>

#include <immintrin.h>

#include <algorithm>
#include <utility>

// After the headers: what they define must run on any CPU.
#pragma GCC target("avx2,fma,f16c")

namespace aoti::native {

namespace {

using Vector = __m256;
using Mask = __m256i;

constexpr int64_t kWidth = 8;
constexpr int kRows = 6;  // with 2 vectors of b and one element of a, 15 of 16 registers
constexpr int kVectors = 2;
constexpr int kThreeRows = 0;
constexpr int kFourRows = 3;
constexpr int kDotRows = 3;
constexpr int kDotColumns = 4;

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector splat(float value) { return _mm256_set1_ps(value); }
inline Vector load(const float* from) { return _mm256_loadu_ps(from); }
inline Vector load(const float* from, Mask mask) { return _mm256_maskload_ps(from, mask); }
inline void store(float* to, Vector vector) { _mm256_storeu_ps(to, vector); }
inline void store(float* to, Vector vector, Mask mask) { _mm256_maskstore_ps(to, mask, vector); }
inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Mask first_lanes(int64_t lanes) {
  return _mm256_cmpgt_epi32(
      _mm256_set1_epi32(static_cast<int>(lanes)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#include <aoti/native/kernels/gemm/avx.h>

inline float add_lanes(Vector vector) { return add_8_lanes(vector); }

#include <aoti/native/kernels/gemm/loops.h>

}  // namespace

const GemmKernels avx2_gemm_kernels = {
    kRows, kVectors * kWidth, kWidth, tiles, dot, dots, sweep, pack, transpose};

}  // namespace aoti::native

#endif
