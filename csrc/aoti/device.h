#pragma once

// Does a device do its work? Through ATen's own dispatch, so that one source serves all backends.

#include <aoti/errors.h>

#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>

#include <cstdint>
#include <string>

namespace aoti {

// Allocates `count` floats on the device, adds them up and waits for the result.
inline Failure add_ones(const std::string& device, int64_t count, double& sum) noexcept {
  return guarded([&]() -> Failure {
    const at::Tensor ones = at::ones({count}, at::TensorOptions().device(c10::Device(device)));
    sum = at::sum(ones).item<double>();
    return {};
  });
}

}  // namespace aoti
