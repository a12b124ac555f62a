#pragma once

// Vectors of 256 bits, with the operations that the mathematics is written in. To be included
// where AVX2 and FMA are the target, after every other header. vector_avx512_inl.h has the same.

namespace aoti::native {
namespace {

struct MaskF8 {
  __m256 v;
};

inline MaskF8 operator&(MaskF8 a, MaskF8 b) { return {_mm256_and_ps(a.v, b.v)}; }
inline MaskF8 operator|(MaskF8 a, MaskF8 b) { return {_mm256_or_ps(a.v, b.v)}; }
inline bool any(MaskF8 a) { return _mm256_movemask_ps(a.v) != 0; }
inline bool all(MaskF8 a) { return _mm256_movemask_ps(a.v) == 0xff; }

struct MaskD4 {
  __m256d v;
};

inline MaskD4 operator&(MaskD4 a, MaskD4 b) { return {_mm256_and_pd(a.v, b.v)}; }
inline MaskD4 operator|(MaskD4 a, MaskD4 b) { return {_mm256_or_pd(a.v, b.v)}; }
inline bool any(MaskD4 a) { return _mm256_movemask_pd(a.v) != 0; }

struct D4 {
  using Scalar = double;
  using Bits = int64_t;
  using Mask = MaskD4;
  static constexpr int kLanes = 4;

  __m256d v;

  D4() = default;
  D4(__m256d vector) : v(vector) {}
  D4(double value) : v(_mm256_set1_pd(value)) {}
  static D4 of_bits(int64_t bits) { return of(_mm256_set1_epi64x(bits)); }
  static D4 of(__m256i bits) { return _mm256_castsi256_pd(bits); }
  static D4 load(const double* from) { return _mm256_loadu_pd(from); }
  void store(double* to) const { _mm256_storeu_pd(to, v); }
  __m256i bits() const { return _mm256_castpd_si256(v); }
};

inline D4 operator+(D4 a, D4 b) { return _mm256_add_pd(a.v, b.v); }
inline D4 operator-(D4 a, D4 b) { return _mm256_sub_pd(a.v, b.v); }
inline D4 operator*(D4 a, D4 b) { return _mm256_mul_pd(a.v, b.v); }
inline D4 operator/(D4 a, D4 b) { return _mm256_div_pd(a.v, b.v); }
inline D4 operator&(D4 a, D4 b) { return _mm256_and_pd(a.v, b.v); }
inline D4 operator|(D4 a, D4 b) { return _mm256_or_pd(a.v, b.v); }
inline D4 operator^(D4 a, D4 b) { return _mm256_xor_pd(a.v, b.v); }
inline D4 without(D4 a, D4 b) { return _mm256_andnot_pd(b.v, a.v); }
inline D4 fma(D4 a, D4 b, D4 c) { return _mm256_fmadd_pd(a.v, b.v, c.v); }
inline D4 fms(D4 a, D4 b, D4 c) { return _mm256_fmsub_pd(a.v, b.v, c.v); }
inline D4 fnma(D4 a, D4 b, D4 c) { return _mm256_fnmadd_pd(a.v, b.v, c.v); }
inline D4 sqrt(D4 a) { return _mm256_sqrt_pd(a.v); }
inline D4 min(D4 a, D4 b) { return _mm256_min_pd(a.v, b.v); }
inline D4 max(D4 a, D4 b) { return _mm256_max_pd(a.v, b.v); }
inline D4 round(D4 a) { return _mm256_round_pd(a.v, 8); }
inline D4 trunc(D4 a) { return _mm256_round_pd(a.v, 11); }
inline MaskD4 operator<(D4 a, D4 b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)}; }
inline MaskD4 operator==(D4 a, D4 b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)}; }
inline MaskD4 operator!=(D4 a, D4 b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_NEQ_UQ)}; }
inline MaskD4 not_less(D4 a, D4 b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_NLT_UQ)}; }
inline MaskD4 negative(D4 a) { return {a.v}; }
inline D4 select(MaskD4 m, D4 a, D4 b) { return _mm256_blendv_pd(b.v, a.v, m.v); }

// Of the bits, as integers.
inline D4 add_bits(D4 a, D4 b) { return D4::of(_mm256_add_epi64(a.bits(), b.bits())); }
template <int kCount>
inline D4 shift_left(D4 a) {
  return D4::of(_mm256_slli_epi64(a.bits(), kCount));
}
template <int kCount>
inline D4 shift_right(D4 a) {
  return D4::of(_mm256_srli_epi64(a.bits(), kCount));
}

// a times 2 to the integer n: two factors, because one may have no exponent of its own. The sums
// have the biased exponent in their last bits.
inline D4 scale(D4 a, D4 n) {
  const D4 half = round(n * 0.5);
  const D4 bias = 0x1.8p52 + 1023;
  return a * shift_left<52>(half + bias) * shift_left<52>((n - half) + bias);
}

struct F8 {
  using Scalar = float;
  using Bits = int32_t;
  using Mask = MaskF8;
  using Double = D4;
  static constexpr int kLanes = 8;
  static constexpr bool kScales = false;  // whether scale() is one instruction

  __m256 v;

  F8() = default;
  F8(__m256 vector) : v(vector) {}
  F8(float value) : v(_mm256_set1_ps(value)) {}
  static F8 of_bits(int32_t bits) { return of(_mm256_set1_epi32(bits)); }
  static F8 of(__m256i bits) { return _mm256_castsi256_ps(bits); }
  static F8 load(const float* from) { return _mm256_loadu_ps(from); }
  void store(float* to) const { _mm256_storeu_ps(to, v); }
  __m256i bits() const { return _mm256_castps_si256(v); }

  // The halves, in double, and back.
  D4 low() const { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
  D4 high() const { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
  static F8 join(D4 low, D4 high) {
    return _mm256_set_m128(_mm256_cvtpd_ps(high.v), _mm256_cvtpd_ps(low.v));
  }
};

inline F8 operator+(F8 a, F8 b) { return _mm256_add_ps(a.v, b.v); }
inline F8 operator-(F8 a, F8 b) { return _mm256_sub_ps(a.v, b.v); }
inline F8 operator*(F8 a, F8 b) { return _mm256_mul_ps(a.v, b.v); }
inline F8 operator/(F8 a, F8 b) { return _mm256_div_ps(a.v, b.v); }
inline F8 operator&(F8 a, F8 b) { return _mm256_and_ps(a.v, b.v); }
inline F8 operator|(F8 a, F8 b) { return _mm256_or_ps(a.v, b.v); }
inline F8 operator^(F8 a, F8 b) { return _mm256_xor_ps(a.v, b.v); }
inline F8 without(F8 a, F8 b) { return _mm256_andnot_ps(b.v, a.v); }
inline F8 fma(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
inline F8 fnma(F8 a, F8 b, F8 c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
inline F8 min(F8 a, F8 b) { return _mm256_min_ps(a.v, b.v); }
inline F8 max(F8 a, F8 b) { return _mm256_max_ps(a.v, b.v); }
inline F8 round(F8 a) { return _mm256_round_ps(a.v, 8); }
inline F8 trunc(F8 a) { return _mm256_round_ps(a.v, 11); }
inline MaskF8 operator<(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline MaskF8 operator==(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline MaskF8 operator!=(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
inline MaskF8 not_less(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NLT_UQ)}; }
inline MaskF8 negative(F8 a) { return {a.v}; }
inline F8 select(MaskF8 m, F8 a, F8 b) { return _mm256_blendv_ps(b.v, a.v, m.v); }

// Of the bits, as integers.
inline F8 add_bits(F8 a, F8 b) { return F8::of(_mm256_add_epi32(a.bits(), b.bits())); }
template <int kCount>
inline F8 shift_left(F8 a) {
  return F8::of(_mm256_slli_epi32(a.bits(), kCount));
}

inline F8 scale(F8 a, F8 n) {
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  return a * F8::of(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)) *
         F8::of(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
}

}  // namespace
}  // namespace aoti::native
