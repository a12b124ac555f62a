#pragma once

// Vectors of 512 bits, with the operations of vector_avx2_inl.h. To be included where AVX-512 F,
// BW, DQ and VL are the target, after every other header.

namespace aoti::native {
namespace {

struct MaskF16 {
  __mmask16 v;
};

inline MaskF16 operator&(MaskF16 a, MaskF16 b) { return {_kand_mask16(a.v, b.v)}; }
inline MaskF16 operator|(MaskF16 a, MaskF16 b) { return {_kor_mask16(a.v, b.v)}; }
inline bool any(MaskF16 a) { return a.v != 0; }

struct MaskD8 {
  __mmask8 v;
};

inline MaskD8 operator&(MaskD8 a, MaskD8 b) { return {_kand_mask8(a.v, b.v)}; }
inline MaskD8 operator|(MaskD8 a, MaskD8 b) { return {_kor_mask8(a.v, b.v)}; }
inline bool any(MaskD8 a) { return a.v != 0; }

struct D8 {
  using Scalar = double;
  using Bits = int64_t;
  using Mask = MaskD8;
  static constexpr int kLanes = 8;

  __m512d v;

  D8() = default;
  D8(__m512d vector) : v(vector) {}
  D8(double value) : v(_mm512_set1_pd(value)) {}
  static D8 of_bits(int64_t bits) { return of(_mm512_set1_epi64(bits)); }
  static D8 of(__m512i bits) { return _mm512_castsi512_pd(bits); }
  static D8 load(const double* from) { return _mm512_loadu_pd(from); }
  void store(double* to) const { _mm512_storeu_pd(to, v); }
  __m512i bits() const { return _mm512_castpd_si512(v); }
};

inline D8 operator+(D8 a, D8 b) { return _mm512_add_pd(a.v, b.v); }
inline D8 operator-(D8 a, D8 b) { return _mm512_sub_pd(a.v, b.v); }
inline D8 operator*(D8 a, D8 b) { return _mm512_mul_pd(a.v, b.v); }
inline D8 operator/(D8 a, D8 b) { return _mm512_div_pd(a.v, b.v); }
inline D8 operator&(D8 a, D8 b) { return _mm512_and_pd(a.v, b.v); }
inline D8 operator|(D8 a, D8 b) { return _mm512_or_pd(a.v, b.v); }
inline D8 operator^(D8 a, D8 b) { return _mm512_xor_pd(a.v, b.v); }
inline D8 without(D8 a, D8 b) { return _mm512_andnot_pd(b.v, a.v); }
inline D8 fma(D8 a, D8 b, D8 c) { return _mm512_fmadd_pd(a.v, b.v, c.v); }
inline D8 fms(D8 a, D8 b, D8 c) { return _mm512_fmsub_pd(a.v, b.v, c.v); }
inline D8 fnma(D8 a, D8 b, D8 c) { return _mm512_fnmadd_pd(a.v, b.v, c.v); }
inline D8 sqrt(D8 a) { return _mm512_sqrt_pd(a.v); }
inline D8 min(D8 a, D8 b) { return _mm512_min_pd(a.v, b.v); }
inline D8 max(D8 a, D8 b) { return _mm512_max_pd(a.v, b.v); }
inline D8 round(D8 a) { return _mm512_roundscale_pd(a.v, 8); }
inline D8 trunc(D8 a) { return _mm512_roundscale_pd(a.v, 11); }
inline MaskD8 operator<(D8 a, D8 b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline MaskD8 operator==(D8 a, D8 b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline MaskD8 operator!=(D8 a, D8 b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
inline MaskD8 not_less(D8 a, D8 b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_NLT_UQ)}; }
inline MaskD8 negative(D8 a) { return {_mm512_movepi64_mask(a.bits())}; }
inline D8 select(MaskD8 m, D8 a, D8 b) { return _mm512_mask_blend_pd(m.v, b.v, a.v); }

// Of the bits, as integers.
inline D8 add_bits(D8 a, D8 b) { return D8::of(_mm512_add_epi64(a.bits(), b.bits())); }
template <int kCount>
inline D8 shift_left(D8 a) {
  return D8::of(_mm512_slli_epi64(a.bits(), kCount));
}
template <int kCount>
inline D8 shift_right(D8 a) {
  return D8::of(_mm512_srli_epi64(a.bits(), kCount));
}

// a times 2 to the integer n.
inline D8 scale(D8 a, D8 n) { return _mm512_scalef_pd(a.v, n.v); }

struct F16 {
  using Scalar = float;
  using Bits = int32_t;
  using Mask = MaskF16;
  using Double = D8;
  static constexpr int kLanes = 16;
  static constexpr bool kScales = true;  // whether scale() is one instruction

  __m512 v;

  F16() = default;
  F16(__m512 vector) : v(vector) {}
  F16(float value) : v(_mm512_set1_ps(value)) {}
  static F16 of_bits(int32_t bits) { return of(_mm512_set1_epi32(bits)); }
  static F16 of(__m512i bits) { return _mm512_castsi512_ps(bits); }
  static F16 load(const float* from) { return _mm512_loadu_ps(from); }
  void store(float* to) const { _mm512_storeu_ps(to, v); }
  __m512i bits() const { return _mm512_castps_si512(v); }

  // The halves, in double, and back.
  D8 low() const { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
  D8 high() const { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
  static F16 join(D8 low, D8 high) {
    return _mm512_insertf32x8(
        _mm512_castps256_ps512(_mm512_cvtpd_ps(low.v)), _mm512_cvtpd_ps(high.v), 1);
  }
};

inline F16 operator+(F16 a, F16 b) { return _mm512_add_ps(a.v, b.v); }
inline F16 operator-(F16 a, F16 b) { return _mm512_sub_ps(a.v, b.v); }
inline F16 operator*(F16 a, F16 b) { return _mm512_mul_ps(a.v, b.v); }
inline F16 operator/(F16 a, F16 b) { return _mm512_div_ps(a.v, b.v); }
inline F16 operator&(F16 a, F16 b) { return _mm512_and_ps(a.v, b.v); }
inline F16 operator|(F16 a, F16 b) { return _mm512_or_ps(a.v, b.v); }
inline F16 operator^(F16 a, F16 b) { return _mm512_xor_ps(a.v, b.v); }
inline F16 without(F16 a, F16 b) { return _mm512_andnot_ps(b.v, a.v); }
inline F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
inline F16 fnma(F16 a, F16 b, F16 c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
inline F16 min(F16 a, F16 b) { return _mm512_min_ps(a.v, b.v); }
inline F16 max(F16 a, F16 b) { return _mm512_max_ps(a.v, b.v); }
inline F16 round(F16 a) { return _mm512_roundscale_ps(a.v, 8); }
inline F16 trunc(F16 a) { return _mm512_roundscale_ps(a.v, 11); }
inline MaskF16 operator<(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline MaskF16 operator==(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline MaskF16 operator!=(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
inline MaskF16 not_less(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ)}; }
inline MaskF16 negative(F16 a) { return {_mm512_movepi32_mask(a.bits())}; }
inline F16 select(MaskF16 m, F16 a, F16 b) { return _mm512_mask_blend_ps(m.v, b.v, a.v); }

// Of the bits, as integers.
inline F16 add_bits(F16 a, F16 b) { return F16::of(_mm512_add_epi32(a.bits(), b.bits())); }
template <int kCount>
inline F16 shift_left(F16 a) {
  return F16::of(_mm512_slli_epi32(a.bits(), kCount));
}

// a times 2 to the integer n.
inline F16 scale(F16 a, F16 n) { return _mm512_scalef_ps(a.v, n.v); }

}  // namespace
}  // namespace aoti::native
