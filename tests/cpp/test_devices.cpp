#include <aoti/engine/devices.h>
#include <aoti/engine/registry.h>

#include "arrays.h"
#include "expect.h"
#include "fake_engine.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// In the order in which the tests are written: the first is over before there is an engine.
namespace aoti {

namespace {

using Log = std::vector<std::string>;

void load() { REQUIRE_OK(add_engine(&fake::engine_with_devices())); }

Tensor on_cpu(const Shape& shape, const void* data) {
  return Tensor::over(shape.over(data, kFloat32), nullptr, nullptr);
}

Tensor on_device(const Shape& shape, const void* data, Device device = fake::kDevice) {
  Tensor moved;
  REQUIRE_OK(move_to(on_cpu(shape, data), device, moved));
  return moved;
}

float at(const Tensor& tensor, std::size_t offset) {
  return static_cast<const float*>(tensor.data())[offset];
}

void expect_failure(const Status& status) {
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT_EQ(status.message, "message");
  EXPECT_EQ(status.detail, "detail");
}

const float numbers[] = {1, 2, 3, 4, 5, 6};

}  // namespace

TEST(without_an_engine_that_knows_devices_there_is_the_cpu) {
  REQUIRE_OK(add_engine(&fake::engine()));
  EXPECT(usable(kCpu));
  EXPECT(!usable(fake::kDevice));
  Device device = fake::kDevice;
  EXPECT_OK(find_device("cpu", device));
  EXPECT(same(device, kCpu));
  const Tensor tensor = on_cpu(Shape({2}), numbers);
  Tensor copy;
  int64_t number = 0, other = 0;
  uintptr_t handle = 0;
  double sum = 0;
  StreamScope scope;
  InputList inputs;
  REQUIRE_OK(inputs.add(Shape({2}).array(numbers, kFloat32), Shape({2}).strides.data()));
  const Status failures[] = {
      find_device("fake", device),
      check_device("fake", 1, sum),
      current_stream(fake::kDevice, number, handle),
      find_stream(fake::kDevice, handle, number),
      wait_stream(fake::kDevice, 0, 1),
      record_stream(tensor, 0),
      device_memory(fake::kDevice, number, other),
      reset_peak(fake::kDevice),
      scope.enter(fake::kDevice, 0),
      move_to(tensor, fake::kDevice, copy),
      upload(inputs, 0, fake::kDevice),
  };
  for (const Status& status : failures) {
    EXPECT_EQ(status.code, StatusCode::kExecution);
    EXPECT(status.message.find("no engine is loaded") != std::string::npos);
  }
  EXPECT_OK(move_to(tensor, kCpu, copy));
  EXPECT_EQ(at(copy, 1), 2.0F);
}

TEST(devices_are_found_by_name) {
  const fake::Fresh fresh;
  load();
  Device device{};
  REQUIRE_OK(find_device("fake:1", device));
  EXPECT(same(device, fake::kOtherDevice));
  REQUIRE_OK(find_device("fake", device));
  EXPECT(same(device, fake::kDevice));
  EXPECT(usable(device));
  EXPECT(!usable({kDLExtDev, 2}));
  const Status status = find_device("other", device);
  EXPECT_EQ(status.code, StatusCode::kExecution);
  EXPECT_EQ(status.message, "no device other");
  EXPECT_EQ(status.detail, "the fake engine has two");
  double sum = 0;
  REQUIRE_OK(check_device("fake", 1000, sum));
  EXPECT_EQ(sum, 1000.0);
  fake::fail_next("check", AOTI_FAILED, "message", "detail");
  expect_failure(check_device("fake", 1000, sum));
}

TEST(memory_of_a_device_is_reported) {
  const fake::Fresh fresh;
  load();
  int64_t now = 0, peak = 0;
  REQUIRE_OK(device_memory(fake::kDevice, now, peak));
  EXPECT_EQ(now, 10);
  EXPECT_EQ(peak, 20);
  REQUIRE_OK(reset_peak(fake::kDevice));
  REQUIRE_OK(device_memory(fake::kDevice, now, peak));
  EXPECT_EQ(peak, 10);
}

// -- streams --------------------------------------------------------------------------------------

TEST(a_stream_is_current_for_one_scope) {
  const fake::Fresh fresh;
  load();
  int64_t number = -1;
  uintptr_t handle = 0;
  {
    StreamScope scope;
    REQUIRE_OK(scope.enter(fake::kDevice, 7));
    REQUIRE_OK(current_stream(fake::kDevice, number, handle));
    EXPECT_EQ(number, 7);
    int64_t found = -1;
    REQUIRE_OK(find_stream(fake::kDevice, handle, found));
    EXPECT_EQ(found, 7);
    REQUIRE_OK(scope.enter(fake::kOtherDevice, 3));  // leaves the one before
  }
  EXPECT(fake::log == Log({"enter 0 7", "leave 0 7", "enter 1 3", "leave 1 3"}));
  REQUIRE_OK(current_stream(fake::kDevice, number, handle));
  EXPECT_EQ(number, 0);
  EXPECT_EQ(find_stream(fake::kDevice, 1, number).code, StatusCode::kExecution);
}

TEST(a_stream_that_cannot_be_entered_is_not_left) {
  const fake::Fresh fresh;
  load();
  {
    StreamScope scope;
    REQUIRE_OK(scope.enter(fake::kDevice, 3));
    fake::fail_next("enter_stream", AOTI_FAILED, "message", "detail");
    expect_failure(scope.enter(fake::kDevice, 7));
  }
  EXPECT(fake::log == Log({"enter 0 3", "leave 0 3"}));
}

TEST(streams_wait_for_each_other) {
  const fake::Fresh fresh;
  load();
  REQUIRE_OK(wait_stream(fake::kDevice, 2, 5));
  EXPECT(fake::log == Log({"wait 2 5"}));
}

TEST(only_memory_of_the_engine_is_recorded) {
  const fake::Fresh fresh;
  load();
  const Tensor moved = on_device(Shape({6}), numbers);
  fake::log.clear();
  REQUIRE_OK(record_stream(moved, 5));
  REQUIRE_OK(record_stream(on_cpu(Shape({6}), numbers), 5));
  EXPECT(fake::log == Log({"record 6 5"}));
}

// -- tensors --------------------------------------------------------------------------------------

TEST(a_tensor_moves_to_a_device_and_back_with_its_strides) {
  const fake::Fresh fresh;
  load();
  const Tensor moved = on_device(Shape({2, 3}, {1, 2}), numbers);
  EXPECT(same(moved.device(), fake::kDevice));
  EXPECT_EQ(moved.strides()[1], 2);
  Tensor back;
  REQUIRE_OK(move_to(moved, kCpu, back));
  EXPECT(back.is_cpu());
  EXPECT_EQ(back.strides()[1], 2);
  EXPECT_EQ(at(back, 4), 5.0F);
  EXPECT(fake::log == Log({"copy_to 0 1", "copy_to 0 1"}));
  fake::fail_next("copy_to", AOTI_FAILED, "message", "detail");
  Tensor none;
  expect_failure(move_to(moved, fake::kOtherDevice, none));
  EXPECT(!none.defined());
}

TEST(copies_on_a_device_are_in_the_order_that_was_asked_for) {
  const fake::Fresh fresh;
  load();
  for (const bool device : {false, true}) {
    const auto place = [&](const Shape& shape) {
      return device ? on_device(shape, numbers) : on_cpu(shape, numbers);
    };
    Tensor copy;
    REQUIRE_OK(clone_on_device(place(Shape({2, 3}, {1, 2})), copy));
    EXPECT_EQ(copy.strides()[0], 3);
    EXPECT_EQ(at(copy, 1), 3.0F);
    EXPECT_EQ(copy.is_cpu(), !device);
    REQUIRE_OK(clone_preserving_on_device(place(Shape({2, 3}, {1, 2})), copy));
    EXPECT_EQ(copy.strides()[0], 1);
    EXPECT_EQ(at(copy, 1), 2.0F);
    REQUIRE_OK(clone_preserving_on_device(place(Shape({2, 2}, {3, 2})), copy));  // with gaps
    EXPECT_EQ(copy.strides()[0], 2);
    EXPECT_EQ(at(copy, 1), 3.0F);
    REQUIRE_OK(copy_strided_on_device(place(Shape({2, 3})), {1, 2}, copy));
    EXPECT_EQ(copy.strides()[0], 1);
    EXPECT_EQ(at(copy, 1), 4.0F);
  }
}

TEST(a_copy_that_fails_releases_its_memory) {
  const fake::Fresh fresh;
  load();
  const Tensor tensor = on_device(Shape({2}), numbers);
  Tensor copy;
  for (const char* function : {"empty", "copy"}) {
    fake::fail_next(function, AOTI_FAILED, "message", "detail");
    expect_failure(clone_on_device(tensor, copy));
    EXPECT(!copy.defined());
    EXPECT_EQ(fake::counts.tensors, 1);
  }
}

TEST(a_prototype_gives_the_device_too) {
  const fake::Fresh fresh;
  load();
  const Shape shape({2, 3}, {1, 2});
  Tensor tensor;
  DLTensor prototype = shape.over(nullptr, kFloat32);
  REQUIRE_OK(allocate_like_on_device(prototype, tensor));
  EXPECT(tensor.is_cpu());
  prototype.device = fake::kOtherDevice;
  REQUIRE_OK(allocate_like_on_device(prototype, tensor));
  EXPECT(same(tensor.device(), fake::kOtherDevice));
  EXPECT_EQ(tensor.strides()[0], 3);
  for (int rank : {-1, kMaxRank + 1}) {
    prototype.ndim = rank;
    EXPECT_EQ(allocate_like_on_device(prototype, tensor).code, StatusCode::kExecution);
  }
}

TEST(elements_are_copied_between_devices) {
  const fake::Fresh fresh;
  load();
  const Tensor device = on_device(Shape({2}), numbers);
  float memory[2] = {}, other[2] = {};
  const Tensor host = on_cpu(Shape({2}), memory);
  REQUIRE_OK(copy_between_devices(host.view(), device.view()));
  EXPECT_EQ(memory[1], 2.0F);
  fake::fail_next("copy", AOTI_FAILED, "message", "detail");
  REQUIRE_OK(copy_between_devices(on_cpu(Shape({2}), other).view(), host.view()));
  EXPECT_EQ(other[1], 2.0F);
  expect_failure(copy_between_devices(device.view(), host.view()));
}

// -- inputs ---------------------------------------------------------------------------------------

TEST(an_input_is_uploaded_without_a_wait) {
  const fake::Fresh fresh;
  load();
  const Shape shape({2, 3}, {1, 2});
  InputList inputs;
  REQUIRE_OK(inputs.add(shape.array(numbers, kFloat32), shape.strides.data()));
  REQUIRE_OK(upload(inputs, 0, fake::kDevice));
  EXPECT(fake::log == Log({"copy_to 0 0"}));
  EXPECT(same(inputs.view(0).device, fake::kDevice));
  EXPECT(inputs.view(0).data != static_cast<const void*>(numbers));
  EXPECT_EQ(inputs.view(0).strides[0], 1);
  EXPECT_EQ(static_cast<const float*>(inputs.view(0).data)[5], 6.0F);
}

TEST(an_output_that_lies_in_an_uploaded_input_outlives_the_inputs) {
  const fake::Fresh fresh;
  load();
  const Shape shape({2});
  Owner owner;
  AotiInput taken{};
  {
    InputList inputs;
    REQUIRE_OK(inputs.add(shape.array(numbers, kFloat32), shape.strides.data()));
    inputs.set_owner(&owner, Owner::release);
    REQUIRE_OK(upload(inputs, 0, fake::kDevice));
    EXPECT_EQ(owner.released, 1);  // the host's memory is not needed any more
    taken = inputs.data()[0];
    inputs.data()[0].owner = nullptr;  // as an engine does that takes it
  }
  EXPECT_EQ(static_cast<const float*>(taken.view.data)[1], 2.0F);
  taken.release(taken.owner);
}

TEST(an_input_that_cannot_be_uploaded_stays_as_it_was) {
  const fake::Fresh fresh;
  load();
  const Shape shape({2});
  Owner owner;
  {
    InputList inputs;
    REQUIRE_OK(inputs.add(shape.array(numbers, kFloat32), shape.strides.data()));
    inputs.set_owner(&owner, Owner::release);
    fake::fail_next("copy_to", AOTI_FAILED, "message", "detail");
    expect_failure(upload(inputs, 0, fake::kDevice));
    EXPECT_EQ(inputs.view(0).data, static_cast<void*>(const_cast<float*>(numbers)));
    EXPECT_EQ(owner.released, 0);
  }
  EXPECT_EQ(owner.released, 1);
}

}  // namespace aoti
