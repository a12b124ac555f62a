#pragma once

// All functions, for the types of vector of the header that was included before; both are to be
// included after the pragma that says the target, and the C++ headers before it.

// clang-format off
#include <aoti/native/kernels/math/common_inl.h>
#include <aoti/native/kernels/math/exp_inl.h>
#include <aoti/native/kernels/math/log_inl.h>
#include <aoti/native/kernels/math/trig_inl.h>
#include <aoti/native/kernels/math/erf_inl.h>
#include <aoti/native/kernels/math/exact_inl.h>
#include <aoti/native/kernels/math/exp_double_inl.h>
#include <aoti/native/kernels/math/log_double_inl.h>
#include <aoti/native/kernels/math/trig_double_inl.h>
#include <aoti/native/kernels/math/double_inl.h>
// clang-format on

namespace aoti::native {
namespace {

// y[i] = function(x[i]). The last vector is filled up with zeros.
template <FloatVector F, class Function>
AOTI_INLINE void over_array(const float* x, float* y, int64_t n, Function function) {
  int64_t i = 0;
  for (; i + F::kLanes <= n; i += F::kLanes) {
    function(F::load(x + i)).store(y + i);
  }
  if (i < n) {
    float lanes[F::kLanes] = {};
    std::memcpy(lanes, x + i, static_cast<size_t>(n - i) * sizeof(float));
    function(F::load(lanes)).store(lanes);
    std::memcpy(y + i, lanes, static_cast<size_t>(n - i) * sizeof(float));
  }
}

}  // namespace
}  // namespace aoti::native
