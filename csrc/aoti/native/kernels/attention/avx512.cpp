#include <aoti/native/kernels/attention/task.h>

#if defined(__x86_64__)

// GCC 12 takes what its own intrinsics leave undefined for a mistake.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstddef>
#include <cstdint>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

namespace aoti::native::attention {

namespace {

struct Vector {
  using Register = __m512;
  using Tail = __mmask16;

  static constexpr int kWidth = 16;
  static constexpr int kTileRows = 12;  // by 2: 24 of 32 registers are sums
  static constexpr int kDots = 8;
  static constexpr int kRowVectors = 8;

  // The first `count` lanes: 1 to all.
  static Tail tail(int64_t count) { return static_cast<Tail>((1U << count) - 1); }

  static Register zero() { return _mm512_setzero_ps(); }
  static Register set(float x) { return _mm512_set1_ps(x); }
  static Register load(const float* data) { return _mm512_loadu_ps(data); }
  static Register load(const float* data, Tail tail) { return _mm512_maskz_loadu_ps(tail, data); }
  static void store(float* data, Register x) { _mm512_storeu_ps(data, x); }
  static void store(float* data, Register x, Tail tail) { _mm512_mask_storeu_ps(data, tail, x); }

  static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static Register sub(Register a, Register b) { return _mm512_sub_ps(a, b); }
  static Register mul(Register a, Register b) { return _mm512_mul_ps(a, b); }
  static Register fma(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
  static Register max(Register a, Register b) { return _mm512_max_ps(a, b); }  // NaN: b

  static __mmask16 less(Register a, Register b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static Register zero_where(__mmask16 mask, Register x) {
    return _mm512_mask_mov_ps(x, mask, _mm512_setzero_ps());
  }
  // x * 2^n, where the low bits of `shifted` are n + 127.
  static Register times_power(Register x, Register shifted) {
    const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_mul_ps(x, _mm512_castsi512_ps(power));
  }
  static Register zero_for_minus_infinity(Register x) {
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    return zero_where(_mm512_cmp_ps_mask(x, lowest, _CMP_EQ_OQ), x);
  }
  // -inf in the lanes before lane `first`.
  static Register from_lane(Register x, int64_t first) {
    const int64_t bound = first < 0 ? 0 : first > kWidth ? kWidth : first;
    return _mm512_mask_mov_ps(x, tail(bound), _mm512_set1_ps(-__builtin_inff()));
  }

  static void store_sums(float* sums, const Register (&x)[kDots]) {
    const __m256 ab = _mm256_hadd_ps(halves(x[0]), halves(x[1]));
    const __m256 cd = _mm256_hadd_ps(halves(x[2]), halves(x[3]));
    const __m256 ef = _mm256_hadd_ps(halves(x[4]), halves(x[5]));
    const __m256 gh = _mm256_hadd_ps(halves(x[6]), halves(x[7]));
    const __m256 low = _mm256_hadd_ps(ab, cd);
    const __m256 high = _mm256_hadd_ps(ef, gh);
    const __m256 first = _mm256_permute2f128_ps(low, high, 0x20);
    _mm256_storeu_ps(sums, _mm256_add_ps(first, _mm256_permute2f128_ps(low, high, 0x31)));
  }

  static Register widen_float16(const uint16_t* data) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
  }
  static Register widen_bfloat16(const uint16_t* data) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void narrow_float16(uint16_t* data, Register x) {
    const __m256i bits = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(data), bits);
  }
  static void narrow_bfloat16(uint16_t* data, Register x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(last, _mm512_set1_epi32(0x7FFF));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i result = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7FC0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(data), _mm512_cvtepi32_epi16(result));
  }

 private:
  static __m256 halves(Register x) {
    return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  }
};

}  // namespace

}  // namespace aoti::native::attention

#include <aoti/native/kernels/attention/common_inl.h>
#include <aoti/native/kernels/attention/panels_inl.h>
#include <aoti/native/kernels/attention/rows_inl.h>

namespace aoti::native::attention {

const Backend avx512_backend{kWidth, run};

}  // namespace aoti::native::attention

#endif
