#pragma once

// Of double: exp, exp2, expm1, tanh, erf.

namespace aoti::native {
namespace {

// x = n ln(2) + r + rest, |r| to ln(2) / 2. The rest is below the last place of r.
template <DoubleVector D>
struct Reduced {
  D n;
  D r;
  D rest;

  explicit AOTI_INLINE Reduced(D x) {
    n = round(x * kLog2E);
    const D high = fnma(n, D(0x1.62e42feep-1), x);  // exact: ln(2) in two parts, the first short
    const D low = n * 0x1.a39ef35793c76p-33;
    r = high - low;
    rest = (high - r) - low;
  }

  // (exp(r) - 1 - r - r^2 / 2) / r^3, 2^-61 of exp(r) - 1
  AOTI_INLINE D series() const {
    return polynomial(
        r,
        0.16666666666666677,
        0.0416666666666667,
        0.008333333333321579,
        0.0013888888888866837,
        0.00019841269886265394,
        2.480158736058281e-05,
        2.7557244062532882e-06,
        2.7557242717091774e-07,
        2.5109090257263218e-08,
        2.092446176521236e-09);
  }
};

// high + low = expm1(x) / 2, of x from -60 to 710: half, because there is no 2^1024.
template <DoubleVector D>
struct HalfExpm1 {
  D high;
  D low;

  explicit AOTI_INLINE HalfExpm1(D x) {
    const Reduced of(x);
    const D square = of.r * (0.5 * of.r);
    const D square_rest = fms(of.r, 0.5 * of.r, square);
    const D cube = fma((square + square) * of.r, of.series(), of.rest);
    const D more = square + cube;
    const D more_rest = ((square - more) + cube) + square_rest;
    const D t = of.r + more;
    const D t_rest = ((of.r - t) + more) + more_rest;

    const D power = power_of_2(of.n - 1.0);
    const D first = power - 0.5;
    const D first_rest = (power - first) - 0.5;
    const D second = power * t;  // smaller than the first, or the first is 0
    high = first + second;
    low = ((first - high) + second) + fma(power, t_rest, first_rest);
  }
};

template <DoubleVector D>
AOTI_INLINE D exp(D x) {
  const Reduced of(max(D(-746.0), min(D(710.0), x)));
  const D more = fma(of.r, fma(of.r, of.series(), D(0.5)), D(1.0));
  return scale(fma(of.r, more, D(1.0)), of.n);
}

template <DoubleVector D>
AOTI_INLINE D exp2(D x) {
  x = max(D(-1076.0), min(D(1025.0), x));
  const D n = round(x);
  const D r = x - n;
  const D p = polynomial(  // (exp2(r) - 1) / r, 2^-64 of exp2(r)
      r,
      0.6931471805599453,
      0.24022650695910072,
      0.0555041086648217,
      0.009618129107628496,
      0.0013333558146390173,
      0.00015403530393340848,
      1.5252733856508689e-05,
      1.3215486833285036e-06,
      1.0178051088862844e-07,
      7.0548881610826395e-09,
      4.4566929091666094e-10,
      2.5741936970425854e-11);
  return scale(fma(r, p, D(1.0)), n);
}

// The half of the smallest numbers would not be exact.
template <DoubleVector D>
AOTI_INLINE D expm1(D x) {
  const HalfExpm1 half(max(D(-60.0), min(D(710.0), x)));
  const D sum = half.high + half.low;
  return select(abs(x) < D(0x1p-54), x, sum + sum);
}

// With h = expm1(2 |x|) / 2, it is h / (h + 1), with the rest of each operation in a correction.
template <DoubleVector D>
AOTI_INLINE D tanh(D x) {
  const D a = min(D(20.0), abs(x));
  const HalfExpm1 h(a + a);
  const D sum = h.high + 1.0;
  const D added = sum - 1.0;
  const D sum_rest = (1.0 - (sum - added)) + (h.high - added) + h.low;
  const D inverse = 1.0 / sum;
  const D quotient = h.high * inverse;
  const D remainder = fnma(quotient, sum, h.high) + fnma(quotient, sum_rest, h.low);
  return with_sign(abs(fma(remainder, inverse, quotient)), x);
}

template <DoubleVector D>
AOTI_INLINE D erf(D x) {
  const D a = min(D(6.0), abs(x));
  const D p = polynomial(  // erf(a) / a - 1, 2^-59 of it, to 0.75
      a * a,
      0.1283791670955126,
      -0.37612638903183715,
      0.11283791670952326,
      -0.026866170644361656,
      0.00522397761458656,
      -0.0008548326129367949,
      0.0001205528700691617,
      -1.4924128305709393e-05,
      1.6429597494035165e-06,
      -1.593048782650376e-07,
      1.1436730697508378e-08);
  const D small = fma(a, p, a);

  const D t = a - 0.75;
  const D q = polynomial(  // (log(erfc(0.75)) - log(erfc(a))) / t, 2^-56 of erf(a), from 0.75 to 6
      t,
      2.2258736679806814,
      0.8078515419197124,
      0.052899989569179136,
      -0.012705625119065918,
      0.0022704462306019934,
      -0.00012961459233208872,
      -0.00010590082200878702,
      5.431368660293714e-05,
      -1.4350960383552085e-05,
      1.4324250564084055e-06,
      7.080652359162466e-07,
      -4.7408907338377306e-07,
      1.6351033238795033e-07,
      -3.8954758585290194e-08,
      6.624097059770153e-09,
      -7.733570871350436e-10,
      5.56769800360048e-11,
      -1.8624123438532525e-12);
  const D constant = -1.241867260678887;
  const D variable = t * q;
  const D exponent = constant - variable;
  const D exponent_rest = ((constant - exponent) - variable) - 6.515855086183219e-17;
  const Reduced of(exponent);
  const D more = fma(of.r * of.r, fma(of.r, of.series(), D(0.5)), of.rest + exponent_rest);
  const D power = power_of_2(of.n);
  const D large = fnma(power, of.r + more, 1.0 - power);
  return with_sign(abs(select(a < D(0.75), small, large)), x);
}

}  // namespace
}  // namespace aoti::native
