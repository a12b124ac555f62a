#pragma once

// Of float: exp, exp2, expm1, sinh, cosh, tanh. The polynomials here and in the other files are
// minimax fits; the comment says how far off they are, relative to the function.

namespace aoti::native {
namespace {

// 2 to the integer n, -1022 to 1023: the sum has n + 1023 in its last bits.
template <DoubleVector D>
AOTI_INLINE D power_of_2(D n) {
  return shift_left<52>(n + D(0x1.8p52 + 1023));
}

// exp(x) = scale (1 + rest), where |x| < 700.
template <DoubleVector D>
struct Exponential {
  D scale;
  D rest;

  AOTI_INLINE D exp() const { return fma(scale, rest, scale); }
  AOTI_INLINE D expm1() const { return fma(scale, rest, scale - 1.0); }
};

template <DoubleVector D>
AOTI_INLINE Exponential<D> exponential(D x) {
  const D n = round(x * kLog2E);
  const D r = fnma(n, D(kLn2), x);
  const D p = polynomial(  // expm1(r) / r, 2^-32
      r,
      0.9999999999909797,
      0.5000000047281947,
      0.16666666854218534,
      0.04166635219305851,
      0.008333268455768502,
      0.0013941165745944973,
      0.00019915943934036386);
  return {power_of_2(n), r * p};
}

// exp2(x), where |x| < 1000.
template <DoubleVector D>
AOTI_INLINE D exponential_of_2(D x) {
  const D n = round(x);
  const D r = x - n;
  const D p = polynomial(  // expm1(r ln 2) / r, 2^-32
      r,
      0.6931471805536678,
      0.24022650923760266,
      0.05550410929129223,
      0.00961805637068756,
      0.0013333454132682492,
      0.00015461566326492896,
      1.531019608704493e-05);
  const D scale = power_of_2(n);
  return fma(scale, r * p, scale);
}

// exp(r), where |r| <= ln(2) / 2, wholly in float: 2^-28.
template <FloatVector F>
AOTI_INLINE F small_exponential(F r) {
  const F p = polynomial(r, 1.0f, 0.5f, 0.166665182f, 0.041666206f, 0.00836891774f, 0.00139505346f);
  return fma(r, p, F(1.0f));
}

// Wholly in float. Beyond the limits are infinity and 0; min and max keep a NaN as their second
// operand.
template <FloatVector F>
AOTI_INLINE F exp(F x) {
  const F shift = 0x1.8p23f;  // x + shift is rounded to an integer, which its last bits hold
  const auto rest = [&x](F n) {
    return fnma(n, F(0x1.7f7d1cp-20f), fnma(n, F(0x1.62e4p-1f), x));  // ln 2, in two parts
  };
  if constexpr (!F::kScales) {
    if (all(abs(x) < F(87.0f))) {  // the result is a normal number: n is added to its exponent
      const F shifted = fma(x, F(0x1.715476p0f), shift);
      return add_bits(small_exponential(rest(shifted - shift)), shift_left<23>(shifted));
    }
  }
  x = max(F(-104.0f), min(F(89.0f), x));
  const F n = fma(x, F(0x1.715476p0f), shift) - shift;
  return scale(small_exponential(rest(n)), n);
}

template <FloatVector F>
AOTI_INLINE F exp2(F x) {
  x = max(F(-151.0f), min(F(129.0f), x));
  const F n = round(x);
  const F r = x - n;
  const F p = polynomial(  // (exp2(r) - 1) / r, 2^-29 of exp2(r)
      r,
      0.693147182f,
      0.240226507f,
      0.0555032752f,
      0.00961800292f,
      0.00134004117f,
      0.000154765337f);
  return scale(fma(r, p, F(1.0f)), n);
}

template <FloatVector F>
AOTI_INLINE F expm1(F x) {
  x = min(F(89.0f), x);
  const F result =
      by_halves(max(F(-104.0f), x), [](auto half) { return exponential(half).expm1(); });
  return abs(result) | signs(x);
}

template <FloatVector F>
AOTI_INLINE F sinh(F x) {
  const F magnitude = by_halves(min(F(100.0f), abs(x)), [](auto half) {
    const auto m = exponential(half).expm1();
    return 0.5 * (m + m / (m + 1.0));
  });
  return with_sign(magnitude, x);
}

template <FloatVector F>
AOTI_INLINE F cosh(F x) {
  return by_halves(min(F(100.0f), abs(x)), [](auto half) {
    const auto e = exponential(half).exp();
    return 0.5 * (e + 1.0 / e);
  });
}

template <FloatVector F>
AOTI_INLINE F tanh(F x) {
  const F magnitude = by_halves(min(F(10.0f), abs(x)), [](auto half) {
    const auto m = exponential(half + half).expm1();
    return m / (m + 2.0);
  });
  return with_sign(magnitude, x);
}

}  // namespace
}  // namespace aoti::native
