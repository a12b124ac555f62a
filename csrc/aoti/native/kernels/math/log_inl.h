#pragma once

// Of float: log, log2, log10, log1p, acosh, asinh, atanh, pow.

namespace aoti::native {
namespace {

// x = m 2^exponent, m from sqrt(1/2) to sqrt(2). Of x that is positive, finite and normal, as each
// positive float is in double.
template <DoubleVector D>
struct Parts {
  D m;
  D exponent;

  explicit AOTI_INLINE Parts(D x) {
    constexpr int64_t kLeast = 0x3FE6A09E667F3BCD;  // sqrt(1/2)
    const D t = add_bits(x, D::of_bits(0x3FF0000000000000 - kLeast));
    m = add_bits(t & D::of_bits(0x000FFFFFFFFFFFFF), D::of_bits(kLeast));
    exponent = (shift_right<52>(t) | D(0x1p52)) - D(0x1p52 + 1023);
  }
};

// log(1 + f) = 2 atanh(f / (2 + f)), of f from sqrt(1/2) - 1 to sqrt(2) - 1.
template <DoubleVector D>
AOTI_INLINE D log_near_1(D f) {
  const D s = f / (f + 2.0);
  const D p = polynomial(  // 2 atanh(s) / s, 2^-36
      s * s,
      2.0000000000085087,
      0.6666666523006402,
      0.400003878307645,
      0.2853486862738767,
      0.23619639091341477);
  return s * p;
}

// log(1 + x), of x from above -1 to 2^300.
template <DoubleVector D>
AOTI_INLINE D log_plus_1(D x) {
  const Parts<D> parts(x + 1.0);
  const D f = select(parts.exponent == D(0.0), x, parts.m - 1.0);
  return fma(parts.exponent, D(kLn2), log_near_1(f));
}

template <DoubleVector D>
AOTI_INLINE D log_of_2(D x) {
  const Parts<D> parts(x);
  return fma(log_near_1(parts.m - 1.0), D(kLog2E), parts.exponent);
}

// The result of a logarithm of x, or what it is of a number without one. `zero` is where it has
// its pole.
template <class V>
AOTI_INLINE V of_logarithm(V result, V x, typename V::Scalar zero) {
  using Limits = std::numeric_limits<typename V::Scalar>;
  result = select(x == V(zero), V(-Limits::infinity()), result);
  result = select(x < V(zero), V(Limits::quiet_NaN()), result);
  return select(not_less(x, V(Limits::infinity())), x, result);
}

template <FloatVector F>
AOTI_INLINE F log(F x) {
  const F result = by_halves(x, [](auto half) {
    const Parts parts(half);
    return fma(parts.exponent, decltype(half)(kLn2), log_near_1(parts.m - 1.0));
  });
  return of_logarithm(result, x, 0.0f);
}

template <FloatVector F>
AOTI_INLINE F log2(F x) {
  return of_logarithm(by_halves(x, [](auto half) { return log_of_2(half); }), x, 0.0f);
}

template <FloatVector F>
AOTI_INLINE F log10(F x) {
  const F result = by_halves(x, [](auto half) {
    using D = decltype(half);
    const Parts parts(half);
    const D fraction = log_near_1(parts.m - 1.0) * 0.43429448190325182765;
    return fma(parts.exponent, D(0.30102999566398119521), fraction);
  });
  return of_logarithm(result, x, 0.0f);
}

template <FloatVector F>
AOTI_INLINE F log1p(F x) {
  const F result = by_halves(x, [](auto half) { return log_plus_1(half); });
  return of_logarithm(abs(result) | signs(x), x, -1.0f);
}

template <FloatVector F>
AOTI_INLINE F acosh(F x) {
  const F result = by_halves(x, [](auto half) {
    const auto above = half - 1.0;
    return log_plus_1(above + sqrt(above * (half + 1.0)));
  });
  return select(x < F(1.0f), F(kNanF), select(not_less(x, F(kInfinityF)), x, result));
}

template <FloatVector F>
AOTI_INLINE F asinh(F x) {
  const F magnitude = by_halves(abs(x), [](auto half) {
    const auto square = half * half;
    return log_plus_1(half + square / (1.0 + sqrt(square + 1.0)));
  });
  return select(not_less(abs(x), F(kInfinityF)), x, with_sign(magnitude, x));
}

template <FloatVector F>
AOTI_INLINE F atanh(F x) {
  const F a = abs(x);
  const F beyond = select(a == F(1.0f), F(kInfinityF), F(kNanF));
  const F magnitude =
      by_halves(a, [](auto half) { return 0.5 * log_plus_1((half + half) / (1.0 - half)); });
  return with_sign(select(not_less(a, F(1.0f)), beyond, magnitude), x);
}

template <DoubleVector D>
AOTI_INLINE D power(D x, D y) {
  const D a = abs(x);
  D exponent = y * select(a == D(0.0), D(-kInfinity), log_of_2(a));
  exponent = select(a == D(kInfinity), y * kInfinity, exponent);
  D result = exponential_of_2(max(D(-200.0), min(D(200.0), exponent)));
  result = select((a == D(1.0)) | (y == D(0.0)), D(1.0), result);
  result = select(a != a, a, result);

  const D half = 0.5 * y;
  const auto whole = round(y) == y;
  const auto odd = whole & (round(half) != half);
  result = select(odd, with_sign(result, x), result);
  const auto without_value = (x < D(0.0)) & (D(-kInfinity) < x) & (round(y) != y);
  result = select(without_value, D(kNan), result);
  return select((x == D(1.0)) | (y == D(0.0)), D(1.0), result);
}

template <FloatVector F>
AOTI_INLINE F pow(F x, F y) {
  return by_halves(x, y, [](auto a, auto b) { return power(a, b); });
}

}  // namespace
}  // namespace aoti::native
