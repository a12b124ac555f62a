#include <aoti/native/kernels/attention/task.h>

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#pragma GCC target("avx2,fma,f16c")

namespace aoti::native::attention {

namespace {

struct Vector {
  using Register = __m256;
  using Tail = __m256i;

  static constexpr int kWidth = 8;
  static constexpr int kTileRows = 6;  // by 2: 12 of 16 registers are sums
  static constexpr int kDots = 8;
  static constexpr int kRowVectors = 8;

  // The first `count` lanes: 1 to all.
  static Tail tail(int64_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
  }

  static Register zero() { return _mm256_setzero_ps(); }
  static Register set(float x) { return _mm256_set1_ps(x); }
  static Register load(const float* data) { return _mm256_loadu_ps(data); }
  static Register load(const float* data, Tail tail) { return _mm256_maskload_ps(data, tail); }
  static void store(float* data, Register x) { _mm256_storeu_ps(data, x); }
  static void store(float* data, Register x, Tail tail) { _mm256_maskstore_ps(data, tail, x); }

  static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static Register sub(Register a, Register b) { return _mm256_sub_ps(a, b); }
  static Register mul(Register a, Register b) { return _mm256_mul_ps(a, b); }
  static Register fma(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
  static Register max(Register a, Register b) { return _mm256_max_ps(a, b); }  // NaN: b

  static Register less(Register a, Register b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static Register zero_where(Register mask, Register x) { return _mm256_andnot_ps(mask, x); }
  // x * 2^n, where the low bits of `shifted` are n + 127.
  static Register times_power(Register x, Register shifted) {
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(power));
  }
  static Register zero_for_minus_infinity(Register x) {
    const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
    return _mm256_andnot_ps(_mm256_cmp_ps(x, lowest, _CMP_EQ_OQ), x);
  }
  // -inf in the lanes before lane `first`.
  static Register from_lane(Register x, int64_t first) {
    const int bound = static_cast<int>(first < 0 ? 0 : first > kWidth ? kWidth : first);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32(bound), lanes);
    const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
    return _mm256_blendv_ps(x, lowest, _mm256_castsi256_ps(before));
  }

  static void store_sums(float* sums, const Register (&x)[kDots]) {
    const __m256 ab = _mm256_hadd_ps(x[0], x[1]);
    const __m256 cd = _mm256_hadd_ps(x[2], x[3]);
    const __m256 ef = _mm256_hadd_ps(x[4], x[5]);
    const __m256 gh = _mm256_hadd_ps(x[6], x[7]);
    const __m256 low = _mm256_hadd_ps(ab, cd);
    const __m256 high = _mm256_hadd_ps(ef, gh);
    const __m256 halves = _mm256_permute2f128_ps(low, high, 0x20);
    _mm256_storeu_ps(sums, _mm256_add_ps(halves, _mm256_permute2f128_ps(low, high, 0x31)));
  }

  static Register widen_float16(const uint16_t* data) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
  }
  static Register widen_bfloat16(const uint16_t* data) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static void narrow_float16(uint16_t* data, Register x) {
    const __m128i bits = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(data), bits);
  }
  static void narrow_bfloat16(uint16_t* data, Register x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(last, _mm256_set1_epi32(0x7FFF));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i result = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0), nan);
    const __m256i packed = _mm256_packus_epi32(result, result);
    const __m256i together = _mm256_permute4x64_epi64(packed, 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(data), _mm256_castsi256_si128(together));
  }
};

}  // namespace

}  // namespace aoti::native::attention

#include <aoti/native/kernels/attention/common_inl.h>
#include <aoti/native/kernels/attention/panels_inl.h>
#include <aoti/native/kernels/attention/rows_inl.h>

namespace aoti::native::attention {

const Backend avx2_backend{kWidth, run};

}  // namespace aoti::native::attention

#endif
