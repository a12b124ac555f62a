#pragma once

// Of float: erf, erfc, lgamma.

namespace aoti::native {
namespace {

template <FloatVector F>
AOTI_INLINE F erf(F x) {
  const F magnitude = by_halves(min(F(4.0f), abs(x)), [](auto half) {
    const auto p = polynomial(  // -log(erfc(x)) / x, 2^-33 of erf(x), to 4
        half,
        1.128379166986383,
        0.6366197887720647,
        0.10277220675497176,
        -0.01912478737606605,
        -0.0002262463498658782,
        0.001742099312505902,
        -0.0006667904399759874,
        0.00010802046459249787,
        8.511229036126873e-06,
        -7.864220001145637e-06,
        1.5101031433069413e-06,
        -1.0578146736615373e-07);
    return 0.0 - exponential(0.0 - half * p).expm1();
  });
  return with_sign(abs(magnitude), x);
}

template <FloatVector F>
AOTI_INLINE F erfc(F x) {
  return by_halves(x, [](auto half) {
    using D = decltype(half);
    const D a = min(D(10.1), abs(half));
    const D p = polynomial(  // erfc(a) exp(a^2), 2^-34, to 10.1, where erfc is 0 in float
        (a - 3.0) / (a + 3.0),
        0.1790011511807686,
        -0.32623356014440263,
        0.24560380197687612,
        -0.15011593109839894,
        0.07166582826800777,
        -0.024392583306332916,
        0.004269220055709063,
        0.0007083275423577245,
        -0.0005973114863076095,
        4.324349497334517e-05,
        6.397529212540484e-05,
        -9.513504139739546e-06,
        -6.682334702275448e-06);
    const D result = p * exponential(0.0 - a * a).exp();
    return select(half < D(0.0), 2.0 - result, result);
  });
}

// The C library's own for float is off by several units in the last place.
template <FloatVector F>
AOTI_INLINE F lgamma(F x) {
  return by_lanes(x, [](double lane) {
    int sign;
    return ::lgamma_r(lane, &sign);
  });
}

}  // namespace
}  // namespace aoti::native
