#pragma once

// A program of the fake engine, and what its runs are given.

#include <aoti/engine/program.h>

#include "arrays.h"
#include "expect.h"
#include "fake_engine.h"

#include <cstdint>
#include <memory>
#include <utility>

namespace aoti {

struct Model {
  Program program{fake::engine(), "a path", "a name", 2, kCpu, 0};

  // Opens weights and serves them.
  void serve(uint64_t number = 1, float weight = 0) {
    std::shared_ptr<WeightSet> weights;
    REQUIRE_OK(program.open(number, false, weights));
    Tensor tensor = Tensor::allocate(kFloat32, 0, nullptr, nullptr);
    *static_cast<float*>(tensor.data()) = weight;
    REQUIRE_OK(weights->set({"w"}, {tensor}, false));
    REQUIRE(program.serve(std::move(weights)));
  }
};

inline void add(InputList& inputs, const Shape& shape, const void* data, DType dtype = kFloat32) {
  REQUIRE_OK(inputs.add(shape.array(data, dtype), shape.strides.data()));
}

inline Tensor over(const Shape& shape, void* data, DType dtype = kFloat32) {
  return Tensor::over(shape.over(data, dtype), nullptr, nullptr);
}

inline float first(const DLTensor& view) { return *static_cast<const float*>(view.data); }

inline void expect_failure(const Status& status, StatusCode code) {
  EXPECT_EQ(status.code, code);
  EXPECT_EQ(status.message, "message");
  EXPECT_EQ(status.detail, "detail");
}

}  // namespace aoti
