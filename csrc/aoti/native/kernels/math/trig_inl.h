#pragma once

// Of float: sin, cos, tan, asin, acos, atan, atan2.

namespace aoti::native {
namespace {

// The sine and the cosine of x, |x| < 2^30.
template <DoubleVector D>
struct SineCosine {
  static constexpr float kBelow = 0x1p30f;

  D sine;
  D cosine;

  explicit AOTI_INLINE SineCosine(D x) {
    // The last bits of the sum have the number of quarter turns, a product has 2 parts of pi / 2.
    const D quarters = fma(x, D(2.0 / kPi), D(0x1.8p52));
    const D n = quarters - 0x1.8p52;
    const D r = fnma(n, D(6.123233995736766e-17), fnma(n, D(0.5 * kPi), x));
    const D z = r * r;
    const D s = r * polynomial(  // sin(r) / r, 2^-37
                        z,
                        0.99999999999566,
                        -0.166666666314956,
                        0.008333328772446412,
                        -0.00019839199028011466,
                        2.717315119473036e-06);
    const D c = polynomial(  // cos(r), 2^-34
        z,
        0.9999999999523637,
        -0.49999999613898144,
        0.041666616589886435,
        -0.0013886614692695213,
        2.437951101605574e-05);
    const auto odd = negative(shift_left<63>(quarters));
    const D sign = signs(shift_left<62>(quarters));
    const D next = signs(shift_left<62>(add_bits(quarters, D::of_bits(1))));
    sine = select(odd, c, s) ^ sign;
    cosine = select(odd, s, c) ^ next;
  }
};

// With the function of each lane where x is too large for the vector's results, or not finite.
template <class V, class Function>
AOTI_INLINE V with_large(V result, V x, typename V::Scalar below, Function function) {
  using Scalar = typename V::Scalar;
  if (__builtin_expect(any(not_less(abs(x), V(below))), 0)) {
    const auto patch = [&](Scalar of, Scalar was) {
      return std::fabs(of) < below ? was : static_cast<Scalar>(function(double{of}));
    };
    return by_lanes(x, result, patch);
  }
  return result;
}

template <FloatVector F>
AOTI_INLINE F sin(F x) {
  const F result = by_halves(x, [](auto half) { return SineCosine(half).sine; });
  return with_large(result, x, SineCosine<typename F::Double>::kBelow, [](double lane) {
    return std::sin(lane);
  });
}

template <FloatVector F>
AOTI_INLINE F cos(F x) {
  const F result = by_halves(x, [](auto half) { return SineCosine(half).cosine; });
  return with_large(result, x, SineCosine<typename F::Double>::kBelow, [](double lane) {
    return std::cos(lane);
  });
}

template <FloatVector F>
AOTI_INLINE F tan(F x) {
  const F result = by_halves(x, [](auto half) {
    const SineCosine of(half);
    return of.sine / of.cosine;
  });
  return with_large(result, x, SineCosine<typename F::Double>::kBelow, [](double lane) {
    return std::tan(lane);
  });
}

// The same to the 3.5 units that suffice to u35, of |x| < 2^13, in float. The parts of pi / 2 have
// 24 bits each; the first difference is exact. None is negative, for -0.
template <FloatVector F>
struct FastSineCosine {
  static constexpr float kBelow = 0x1p13f;

  F sine;
  F cosine;

  explicit AOTI_INLINE FastSineCosine(F x) {
    const F quarters = fma(x, F(0x1.45f306p-1f), F(0x1.8p23f));
    const F n = quarters - 0x1.8p23f;
    const F first = fnma(n, F(0x1.921fb4p0f), x);
    const F r = fnma(n, F(0x1.846988p-48f), fnma(n, F(0x1.4442dp-24f), first));
    const F z = r * r;
    const F p = polynomial(z, -0.166666552f, 0.00833217148f, -0.000195163331f);
    const F s = r * fma(z, p, F(1.0f));
    const F q = polynomial(z, 0.0416666456f, -0.00138873595f, 2.44374132e-05f);
    const F c = fma(z * z, q, fma(z, F(-0.5f), F(1.0f)));
    const auto odd = negative(shift_left<31>(quarters));
    const F sign = signs(shift_left<30>(quarters));
    const F next = signs(shift_left<30>(add_bits(quarters, F::of_bits(1))));
    sine = select(odd, c, s) ^ sign;
    cosine = select(odd, s, c) ^ next;
  }
};

template <FloatVector F>
AOTI_INLINE F sin_u35(F x) {
  const F result = FastSineCosine(x).sine;
  const auto large = not_less(abs(x), F(FastSineCosine<F>::kBelow));
  return __builtin_expect(any(large), 0) ? select(large, sin(x), result) : result;
}

template <FloatVector F>
AOTI_INLINE F cos_u35(F x) {
  const F result = FastSineCosine(x).cosine;
  const auto large = not_less(abs(x), F(FastSineCosine<F>::kBelow));
  return __builtin_expect(any(large), 0) ? select(large, cos(x), result) : result;
}

// asin(x), |x| <= 1/2.
template <DoubleVector D>
AOTI_INLINE D arcsine(D x) {
  const D p = polynomial(  // asin(x) / x, 2^-39
      x * x,
      1.0000000000009373,
      0.16666666607437447,
      0.07500006153520714,
      0.044640403480577295,
      0.030430679377133604,
      0.021833687069695056,
      0.020786481390111085,
      0.0016547475790946178,
      0.033220341017408186);
  return x * p;
}

// Beyond 1, the square root is NaN.
template <FloatVector F>
AOTI_INLINE F asin(F x) {
  const F magnitude = by_halves(abs(x), [](auto half) {
    using D = decltype(half);
    const auto small = half < D(0.5);
    const D s = arcsine(select(small, half, sqrt(0.5 - 0.5 * half)));
    return select(small, s, 0.5 * kPi - (s + s));
  });
  return abs(magnitude) | signs(x);
}

template <FloatVector F>
AOTI_INLINE F acos(F x) {
  return by_halves(x, [](auto half) {
    using D = decltype(half);
    const D a = abs(half);
    const auto small = a < D(0.5);
    const D s = arcsine(select(small, half, sqrt(0.5 - 0.5 * a)));
    const D twice = s + s;
    return select(small, 0.5 * kPi - s, select(half < D(0.0), kPi - twice, twice));
  });
}

// atan(x), 0 <= x <= 1.
template <DoubleVector D>
AOTI_INLINE D arctangent(D x) {
  const D p = polynomial(  // atan(x) / x, 2^-36
      x * x,
      0.9999999999916324,
      -0.3333333303364873,
      0.1999998219311571,
      -0.1428529682248499,
      0.11105987177376671,
      -0.09053019947962282,
      0.07509019683877156,
      -0.06054659718557135,
      0.04415794067644824,
      -0.026538295156203956,
      0.011779188586287107,
      -0.0033288589748037803,
      0.00044139296529213364);
  return x * p;
}

template <FloatVector F>
AOTI_INLINE F atan(F x) {
  const F magnitude = by_halves(abs(x), [](auto half) {
    using D = decltype(half);
    const auto large = D(1.0) < half;
    const D t = arctangent(select(large, 1.0 / half, half));
    return select(large, 0.5 * kPi - t, t);
  });
  return with_sign(magnitude, x);
}

template <FloatVector F>
AOTI_INLINE F atan2(F y, F x) {
  const F magnitude = by_halves(abs(y), x, [](auto b, auto x) {
    using D = decltype(x);
    const D a = abs(x);
    D ratio = min(a, b) / max(a, b);
    ratio = select(max(a, b) == D(0.0), D(0.0), ratio);
    ratio = select(min(a, b) == D(kInfinity), D(1.0), ratio);
    D t = arctangent(ratio);
    t = select(a < b, 0.5 * kPi - t, t);
    t = select(negative(x), kPi - t, t);
    return select((a != a) | (b != b), a + b, t);
  });
  return with_sign(abs(magnitude), y);
}

}  // namespace
}  // namespace aoti::native
