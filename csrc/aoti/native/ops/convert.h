#pragma once

// Elements of one dtype as those of another.

#include <aoti/native/shim/tensor.h>

namespace aoti::native {

// Copies elements as ATen's copy_: with the dtype of `to`, repeated along dimensions that `from`
// does not have or that are 1, also between tensors that share memory. Throws std::invalid_argument
// if the sizes do not fit or a dtype is not one of numbers.
void convert(const Tensor& to, const Tensor& from);

// `tensor` itself if it is of `type`, else a copy that is.
Tensor converted(const Tensor& tensor, ScalarType type);

// Sets all elements of a tensor.
void fill(const Tensor& tensor, double value);

// The dtype of the result of an operator on two tensors (ATen's result_type). `wrapped` says that
// the second one stands for a number of Python.
ScalarType result_type(const Tensor& one, const Tensor& other, bool wrapped = false);
ScalarType promoted(ScalarType one, ScalarType other);

}  // namespace aoti::native
