#pragma once

// Of both types: copysign, fmod, nextafter, which are exact, and hypot.

namespace aoti::native {
namespace {

template <class V>
AOTI_INLINE V copysign(V magnitude, V sign) {
  return abs(magnitude) | signs(sign);
}

// The quotient, rounded down, is the right one or, where its division was rounded up to an
// integer, too large by 1; the remainder of either is exact.
template <class V>
AOTI_INLINE V fmod(V x, V y) {
  using Scalar = typename V::Scalar;
  constexpr Scalar kLarge = sizeof(Scalar) == 4 ? 0x1p23 : 0x1p52;
  const V a = abs(x);
  const V b = abs(y);
  const V quotient = trunc(a / b);
  if (__builtin_expect(any(not_less(quotient, V(kLarge))), 0)) {
    return by_lanes(x, y, [](Scalar lane, Scalar by) { return std::fmod(lane, by); });
  }
  const V rest = fnma(quotient, b, a);
  const V result = select(rest < V(Scalar(0)), rest + b, rest);
  return copysign(select(b == V(Scalar(kInfinity)), a, result), x);
}

template <class V>
AOTI_INLINE V nextafter(V x, V y) {
  using Scalar = typename V::Scalar;
  return by_lanes(x, y, [](Scalar from, Scalar to) { return std::nextafter(from, to); });
}

template <FloatVector F>
AOTI_INLINE F hypot(F x, F y) {
  const F result = by_halves(x, y, [](auto a, auto b) { return sqrt(fma(a, a, b * b)); });
  const F infinity(kInfinityF);
  return select((abs(x) == infinity) | (abs(y) == infinity), infinity, result);
}

}  // namespace
}  // namespace aoti::native
