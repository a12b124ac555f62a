#pragma once

// Matrix products as ATen's `addmm`, `mm`, `bmm` and `baddbmm` with a given output.

#include <aoti/native/shim/tensor.h>

namespace aoti::native {

// out = alpha * one @ other + beta * self, for matrices, or for batches of them. `self` is
// broadcast to the sizes of `out`; it may be `out`, and is not read if beta is 0. `out` may have
// any strides. Throws std::invalid_argument if sizes or dtypes do not fit.
void matmul(
    Tensor& out,
    const Tensor* self,
    const Tensor& one,
    const Tensor& other,
    double beta,
    double alpha);

}  // namespace aoti::native
