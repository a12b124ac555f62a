#pragma once

// Of double: log, log2, log10, log1p.

namespace aoti::native {
namespace {

// The logarithm of (1 + f) 2^exponent + rest, f from sqrt(1/2) - 1 to sqrt(2) - 1. k is that of 2,
// c that of e, each in two parts, of which the first of k is short enough for an exact product.
// log(1 + f) is computed as in FreeBSD's e_log.c and k_log.h: with s = f / (2 + f), it is
// f - f^2 / 2 + s (f^2 / 2 + R(s^2)).
template <DoubleVector D>
AOTI_INLINE D
logarithm(D f, D f_rest, D exponent, double k, double k_rest, double c, double c_rest) {
  const D s = f / (f + 2.0);
  const D z = s * s;
  const D p = z * polynomial(  // 2 (atanh(s) / s - 1), 2^-58 of the logarithm
                      z,
                      0.6666666666666735,
                      0.399999999994123,
                      0.285714287430038,
                      0.22222198500786255,
                      0.1818356856421382,
                      0.15313930254443653,
                      0.14797267645572823);
  const D square = 0.5 * f * f;
  const D high = f - square;
  const D low = fma(s, square + p, ((f - high) - square) + f_rest);

  const D product = high * c;
  D rest = fms(high, D(c), product);
  rest = fma(high, D(c_rest), fma(low, D(c), rest));
  const D first = exponent * k;
  const D sum = first + product;  // the first is 0 or larger
  rest = fma(exponent, D(k_rest), rest) + ((first - sum) + product);
  return sum + rest;
}

// Of x, to the base whose logarithms of 2 and e these are.
template <DoubleVector D>
AOTI_INLINE D logarithm(D x, double k, double k_rest, double c, double c_rest) {
  const auto subnormal = x < D(0x1p-1022);
  const Parts<D> parts(select(subnormal, x * 0x1p54, x));
  const D exponent = select(subnormal, parts.exponent - 54.0, parts.exponent);
  const D result = logarithm(parts.m - 1.0, D(0.0), exponent, k, k_rest, c, c_rest);
  return of_logarithm(result, x, 0.0);
}

template <DoubleVector D>
AOTI_INLINE D log(D x) {
  return logarithm(x, 0x1.62e42feep-1, 0x1.a39ef35793c76p-33, 1.0, 0.0);
}

template <DoubleVector D>
AOTI_INLINE D log2(D x) {
  return logarithm(x, 1.0, 0.0, kLog2E, 0x1.777d0ffda0d24p-56);
}

template <DoubleVector D>
AOTI_INLINE D log10(D x) {
  return logarithm(
      x, 0x1.34413509f6p-2, 0x1.9fef311f12b36p-42, 0.43429448190325182765, 0x1.95355baaafad3p-57);
}

// What 1 + x loses is a small part of it: the derivative is enough. Near 0, f is x itself.
template <DoubleVector D>
AOTI_INLINE D log1p(D x) {
  const D sum = x + 1.0;
  const D lost = select(x < D(1.0), (1.0 - sum) + x, (x - sum) + 1.0);
  const Parts<D> parts(sum);
  const auto near = parts.exponent == D(0.0);
  const D f = select(near, x, parts.m - 1.0);
  const D f_rest = select(near, D(0.0), lost / sum);
  const D result =
      logarithm(f, f_rest, parts.exponent, 0x1.62e42feep-1, 0x1.a39ef35793c76p-33, 1.0, 0.0);
  return of_logarithm(abs(result) | signs(x), x, -1.0);
}

}  // namespace
}  // namespace aoti::native
