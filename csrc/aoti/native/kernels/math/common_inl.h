#pragma once

// What the functions share. V is a vector of either type, F of float, D of double; all are
// instantiated once for each ISA. To be included after a header of vectors.

#define AOTI_INLINE inline __attribute__((always_inline))

namespace aoti::native {
namespace {

template <class V>
concept FloatVector = std::same_as<typename V::Scalar, float>;

template <class V>
concept DoubleVector = std::same_as<typename V::Scalar, double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr float kInfinityF = std::numeric_limits<float>::infinity();
constexpr float kNanF = std::numeric_limits<float>::quiet_NaN();
constexpr double kPi = 3.14159265358979323846;
constexpr double kLn2 = 0.69314718055994530942;
constexpr double kLog2E = 1.44269504088896340736;

template <class V>
AOTI_INLINE V signs(V x) {
  return x & V(typename V::Scalar(-0.0));
}

template <class V>
AOTI_INLINE V abs(V x) {
  return without(x, V(typename V::Scalar(-0.0)));
}

// Of a magnitude that is not negative.
template <class V>
AOTI_INLINE V with_sign(V magnitude, V sign) {
  return magnitude | signs(sign);
}

// c0 + c1 x + c2 x^2 + ...
template <class V, class... Rest>
AOTI_INLINE V polynomial(V x, typename V::Scalar first, Rest... rest) {
  if constexpr (sizeof...(rest) == 0) {
    return V(first);
  } else {
    return fma(polynomial(x, rest...), x, V(first));
  }
}

// A function of float, computed in double: what is good to 32 bits there is, rounded, the nearest
// float but for one in hundreds, and overflow and subnormal numbers need no care.
template <FloatVector F, class Function>
AOTI_INLINE F by_halves(F x, Function function) {
  return F::join(function(x.low()), function(x.high()));
}

template <FloatVector F, class Function>
AOTI_INLINE F by_halves(F x, F y, Function function) {
  return F::join(function(x.low(), y.low()), function(x.high(), y.high()));
}

template <class V, class Function>
AOTI_INLINE V by_lanes(V x, Function function) {
  typename V::Scalar lanes[V::kLanes];
  x.store(lanes);
  for (auto& lane : lanes) {
    lane = static_cast<typename V::Scalar>(function(lane));
  }
  return V::load(lanes);
}

template <class V, class Function>
AOTI_INLINE V by_lanes(V x, V y, Function function) {
  typename V::Scalar lanes[V::kLanes];
  typename V::Scalar others[V::kLanes];
  x.store(lanes);
  y.store(others);
  for (int i = 0; i < V::kLanes; ++i) {
    lanes[i] = static_cast<typename V::Scalar>(function(lanes[i], others[i]));
  }
  return V::load(lanes);
}

}  // namespace
}  // namespace aoti::native
