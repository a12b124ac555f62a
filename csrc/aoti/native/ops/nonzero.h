#pragma once

#include <aoti/native/shim/tensor.h>

namespace aoti::native {

// The positions of all elements that are not 0, as ATen's nonzero: a row each, stored column by
// column.
Tensor nonzero(const Tensor& tensor);

}  // namespace aoti::native
