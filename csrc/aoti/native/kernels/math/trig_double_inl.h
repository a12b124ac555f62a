#pragma once

// Of double: sin, cos.

namespace aoti::native {
namespace {

// The sine and the cosine of x, |x| < 2^20.
template <DoubleVector D>
struct ExactSineCosine {
  static constexpr double kBelow = 0x1p20;

  D sine;
  D cosine;

  explicit AOTI_INLINE ExactSineCosine(D x) {
    const D quarters = fma(x, D(2.0 / kPi), D(0x1.8p52));
    const D n = quarters - 0x1.8p52;

    // r + rest = x - n pi / 2, with three parts of pi / 2. The first difference is exact; the
    // second product may be larger than it.
    const D first = fnma(n, D(0x1.921fb54442d18p0), x);
    const D product = n * 0x1.1a62633145c07p-54;
    const D product_rest = fms(n, D(0x1.1a62633145c07p-54), product);
    const D r = first - product;
    const D taken = first - r;
    const D difference_rest = (first - (r + taken)) + (taken - product);
    const D rest = fma(n, D(0x1.f1976b7ed8fbcp-110), difference_rest - product_rest);

    const D z = r * r;
    const D p = polynomial(  // (sin(r) / r - 1) / r^2, 2^-58 of sin(r)
        z,
        -0.16666666666666632,
        0.008333333333322384,
        -0.00019841269829779488,
        2.7557313680874e-06,
        -2.5050756217253908e-08,
        1.589667706855251e-10);
    const D s = r + fma(z * r, p, fnma(0.5 * z, rest, rest));
    const D q = polynomial(  // (cos(r) - 1 + r^2 / 2) / r^4, 2^-64 of cos(r)
        z,
        0.0416666666666666,
        -0.001388888888887407,
        2.4801587289446494e-05,
        -2.755731434135985e-07,
        2.087572170128175e-09,
        -1.1359562636198557e-11);
    const D square = 0.5 * z;
    const D w = 1.0 - square;
    const D c = w + (((1.0 - w) - square) + fma(z * z, q, 0.0 - r * rest));

    const auto odd = negative(shift_left<63>(quarters));
    const D sign = signs(shift_left<62>(quarters));
    const D next = signs(shift_left<62>(add_bits(quarters, D::of_bits(1))));
    sine = select(odd, c, s) ^ sign;
    cosine = select(odd, s, c) ^ next;
  }
};

// Of the smallest numbers, the sine is the number itself, -0 among them.
template <DoubleVector D>
AOTI_INLINE D sin(D x) {
  const D result = select(abs(x) < D(0x1p-27), x, ExactSineCosine(x).sine);
  constexpr double kBelow = ExactSineCosine<D>::kBelow;
  return with_large(result, x, kBelow, [](double lane) { return std::sin(lane); });
}

template <DoubleVector D>
AOTI_INLINE D cos(D x) {
  constexpr double kBelow = ExactSineCosine<D>::kBelow;
  const D result = ExactSineCosine(x).cosine;
  return with_large(result, x, kBelow, [](double lane) { return std::cos(lane); });
}

}  // namespace
}  // namespace aoti::native
