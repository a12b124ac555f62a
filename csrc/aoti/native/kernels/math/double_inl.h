#pragma once

// All others of double, lane by lane, by the C library. Where glibc's own function of double can be
// off by more than 1 unit in the last place, that of long double is rounded.

namespace aoti::native {
namespace {

#define AOTI_MATH_BY_LANES(name, type)                                     \
  template <DoubleVector D>                                                \
  AOTI_INLINE D name(D x) {                                                \
    return by_lanes(x, [](type lane) -> type { return std::name(lane); }); \
  }

AOTI_MATH_BY_LANES(acos, double)
AOTI_MATH_BY_LANES(acosh, long double)
AOTI_MATH_BY_LANES(asin, double)
AOTI_MATH_BY_LANES(asinh, long double)
AOTI_MATH_BY_LANES(atan, double)
AOTI_MATH_BY_LANES(atanh, long double)
AOTI_MATH_BY_LANES(cosh, long double)
AOTI_MATH_BY_LANES(erfc, long double)
AOTI_MATH_BY_LANES(sinh, long double)
AOTI_MATH_BY_LANES(tan, double)

#undef AOTI_MATH_BY_LANES

// Not std::lgamma, which writes a global variable.
template <DoubleVector D>
AOTI_INLINE D lgamma(D x) {
  return by_lanes(x, [](long double lane) {
    int sign;
    return ::lgammal_r(lane, &sign);
  });
}

template <DoubleVector D>
AOTI_INLINE D atan2(D y, D x) {
  return by_lanes(y, x, [](double a, double b) { return std::atan2(a, b); });
}

template <DoubleVector D>
AOTI_INLINE D pow(D x, D y) {
  return by_lanes(x, y, [](double a, double b) { return std::pow(a, b); });
}

template <DoubleVector D>
AOTI_INLINE D hypot(D x, D y) {
  return by_lanes(x, y, [](long double a, long double b) { return std::hypot(a, b); });
}

}  // namespace
}  // namespace aoti::native
