#include <aoti/core/check.h>
#include <aoti/engine/call.h>

#include "arrays.h"
#include "expect.h"
#include "fake_engine.h"

#include <cstdint>
#include <thread>
#include <vector>

namespace aoti {

namespace {

Status add(InputList& inputs, const Shape& shape, const void* data) {
  return inputs.add(shape.array(data, kFloat32), shape.strides.data());
}

// An output of the fake engine, made by a run of it on one input.
void make_outputs(OutputList& outputs, InputList& inputs) {
  AotiOpenOptions options{};
  options.path = options.model_name = "";
  options.num_runners = 1;
  AotiContainer* container = nullptr;
  REQUIRE(fake::engine().open(&options, &container) == AOTI_OK);
  outputs.start(&fake::engine());
  const int32_t code =
      fake::engine().run(container, 0, inputs.data(), inputs.size(), OutputList::reserve, &outputs);
  fake::engine().close(container);
  REQUIRE(code == AOTI_OK);
}

}  // namespace

// -- inputs ---------------------------------------------------------------------------------------

TEST(sizes_and_strides_are_copied) {
  Shape shape({2, 3});
  float memory[6] = {};
  InputList inputs;
  REQUIRE_OK(add(inputs, shape, memory));
  shape.sizes[0] = shape.strides[0] = 9;
  EXPECT_EQ(inputs.size(), 1);
  EXPECT_EQ(inputs.view(0).data, static_cast<void*>(memory));
  EXPECT_EQ(inputs.view(0).shape[0], 2);
  EXPECT_EQ(inputs.view(0).strides[0], 3);
  EXPECT_EQ(inputs.view(0).byte_offset, 0);
}

TEST(the_strides_are_those_that_were_given) {
  const Shape shape({1, 3}, {-77, 1});
  const int64_t strides[] = {3, 1};
  InputList inputs;
  REQUIRE_OK(inputs.add(shape.array(nullptr, kFloat32), strides));
  EXPECT_EQ(inputs.view(0).strides[0], 3);
}

TEST(numbers_stay_where_they_are_however_many_inputs_follow) {
  InputList inputs;
  for (int i = 0; i < 100; ++i) {
    // Of rank 0 to the highest one, some of which need room of their own.
    REQUIRE_OK(add(inputs, Shape(std::vector<int64_t>(i % (kMaxRank + 1), i)), nullptr));
  }
  for (std::size_t i = 0; i < 100; ++i) {
    const DLTensor& view = inputs.view(i);
    EXPECT_EQ(view.ndim, i % (kMaxRank + 1));
    for (int dim = 0; dim < view.ndim; ++dim) {
      EXPECT_EQ(view.shape[dim], i);
    }
    if (view.ndim > 0) {
      EXPECT_EQ(view.strides[view.ndim - 1], 1);
    }
  }
}

TEST(owners_that_the_engine_did_not_take_are_given_back) {
  Owner first, second, third;
  {
    InputList inputs;
    inputs.reserve(3);
    for (Owner* owner : {&first, &second, &third}) {
      REQUIRE_OK(add(inputs, Shape({}), nullptr));
      inputs.set_owner(owner, Owner::release);
    }
    REQUIRE_OK(add(inputs, Shape({}), nullptr));  // without an owner
    inputs.data()[1].owner = nullptr;             // as an engine does that takes it
    EXPECT_EQ(first.released, 0);
  }
  EXPECT_EQ(first.released, 1);
  EXPECT_EQ(second.released, 0);
  EXPECT_EQ(third.released, 1);
}

TEST(a_tensor_in_place_of_an_input_is_its_owner) {
  Owner kept;
  float memory[6] = {};
  const Shape shape({2, 3}), other({2, 3}, {1, 2});
  {
    InputList inputs;
    REQUIRE_OK(add(inputs, shape, nullptr));
    DLTensor view = other.over(memory, kFloat32);
    view.device = fake::kDevice;
    REQUIRE_OK(inputs.replace(0, Tensor::over(view, &kept, Owner::release)));
    EXPECT_EQ(inputs.view(0).data, static_cast<void*>(memory));
    EXPECT_EQ(inputs.view(0).strides[1], 2);
    EXPECT(same(inputs.view(0).device, fake::kDevice));
    EXPECT(inputs.data()[0].owner != nullptr);
    EXPECT_EQ(kept.released, 0);
  }
  EXPECT_EQ(kept.released, 1);
}

TEST(a_tensor_in_place_of_an_input_with_an_owner_is_the_new_owner) {
  Owner before, kept;
  AotiInput taken{};
  {
    InputList inputs;
    REQUIRE_OK(add(inputs, Shape({2}), nullptr));
    inputs.set_owner(&before, Owner::release);
    float memory[2] = {};
    REQUIRE_OK(
        inputs.replace(0, Tensor::over(Shape({2}).over(memory, kFloat32), &kept, Owner::release)));
    EXPECT_EQ(before.released, 1);
    taken = inputs.data()[0];
    inputs.data()[0].owner = nullptr;
  }
  EXPECT_EQ(before.released, 1);
  EXPECT_EQ(kept.released, 0);  // the engine relies on what it took
  taken.release(taken.owner);
  EXPECT_EQ(kept.released, 1);
}

TEST(a_tensor_in_place_of_an_input_is_given_back_if_the_engine_does_not_take_it) {
  Owner before, kept;
  {
    InputList inputs;
    REQUIRE_OK(add(inputs, Shape({}), nullptr));
    inputs.set_owner(&before, Owner::release);
    REQUIRE_OK(
        inputs.replace(0, Tensor::over(Shape({}).over(nullptr, kFloat32), &kept, Owner::release)));
  }
  EXPECT_EQ(before.released, 1);
  EXPECT_EQ(kept.released, 1);
}

// -- outputs --------------------------------------------------------------------------------------

TEST(outputs_that_nobody_takes_are_released) {
  const fake::Fresh fresh;
  float value = 1;
  InputList inputs;
  REQUIRE_OK(add(inputs, Shape({}), &value));
  {
    OutputList outputs;
    make_outputs(outputs, inputs);
    EXPECT_EQ(outputs.size(), 1);
    EXPECT_EQ(fake::counts.tensors, 1);
    make_outputs(outputs, inputs);  // starts anew
    EXPECT_EQ(fake::counts.tensors, 1);
  }
  EXPECT_EQ(fake::counts.tensors, 0);
}

TEST(an_output_that_was_taken_outlives_the_list_and_is_released_by_its_last_user) {
  const fake::Fresh fresh;
  float value = 3;
  InputList inputs;
  REQUIRE_OK(add(inputs, Shape({}), &value));
  Tensor tensor;
  {
    OutputList outputs;
    make_outputs(outputs, inputs);
    REQUIRE_OK(outputs.take(0, tensor));
    EXPECT_EQ(outputs[0].handle, static_cast<void*>(nullptr));
  }
  EXPECT_EQ(fake::counts.tensors, 1);
  EXPECT_EQ(*static_cast<float*>(tensor.data()), 3.0F);
  EXPECT(tensor.owner_if(fake::engine().release_tensor) != nullptr);
  std::thread([mine = std::move(tensor)] { EXPECT(mine.defined()); }).join();
  EXPECT_EQ(fake::counts.tensors, 0);
}

TEST(a_handle_that_was_given_up_is_its_takers) {
  const fake::Fresh fresh;
  float value = 3;
  InputList inputs;
  REQUIRE_OK(add(inputs, Shape({}), &value));
  void* handle = nullptr;
  {
    OutputList outputs;
    make_outputs(outputs, inputs);
    handle = outputs.release(0);
  }
  EXPECT_EQ(fake::counts.tensors, 1);
  fake::engine().release_tensor(handle);
}

TEST(room_that_cannot_be_had_is_null) {
  OutputList outputs;
  outputs.start(&fake::engine());
  EXPECT(OutputList::reserve(&outputs, SIZE_MAX / 2) == nullptr);
  EXPECT(OutputList::reserve(&outputs, 2) != nullptr);
  EXPECT_EQ(outputs.size(), 2);
  EXPECT_EQ(outputs[1].handle, static_cast<void*>(nullptr));
}

// -- single tensors of an engine ------------------------------------------------------------------

TEST(a_tensor_of_an_engine_is_released_once_wherever_it_moves) {
  const fake::Fresh fresh;
  const auto make = [](EngineTensor& made) {
    const Shape shape({2});
    DLTensor like = shape.over(nullptr, kFloat32);
    like.device = fake::kDevice;
    REQUIRE(fake::engine_with_devices().devices->empty(&like, made.slot()) == AOTI_OK);
  };
  EngineTensor first(&fake::engine_with_devices());
  make(first);
  EngineTensor second(std::move(first));
  EXPECT_EQ(first.get().handle, static_cast<void*>(nullptr));
  EngineTensor third(&fake::engine_with_devices());
  make(third);
  third = std::move(second);
  EXPECT(third.get().handle != nullptr);
  Tensor tensor;
  REQUIRE_OK(third.into(tensor));
  EXPECT_EQ(third.get().handle, static_cast<void*>(nullptr));
  EXPECT_EQ(fake::counts.tensors, 2);  // the other one is in `second` now
  EXPECT_EQ(tensor.numel(), 2);
}

TEST(a_handle_of_a_single_tensor_can_be_given_up) {
  const fake::Fresh fresh;
  EngineTensor made(&fake::engine_with_devices());
  const Shape shape({2});
  const DLTensor like = shape.over(nullptr, kFloat32);
  REQUIRE(fake::engine_with_devices().devices->empty(&like, made.slot()) == AOTI_OK);
  fake::engine().release_tensor(made.release());
}

}  // namespace aoti
