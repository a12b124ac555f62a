#include <aoti/engine/program.h>

#include "arrays.h"
#include "expect.h"
#include "fake_engine.h"
#include "programs.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace aoti {

// -- weights --------------------------------------------------------------------------------------

TEST(a_container_is_opened_as_the_program_says) {
  const fake::Fresh fresh;
  Model model;
  std::shared_ptr<WeightSet> weights;
  REQUIRE_OK(model.program.open(3, true, weights));
  EXPECT_EQ(fake::opened.path, "a path");
  EXPECT_EQ(fake::opened.model_name, "a name");
  EXPECT_EQ(fake::opened.num_runners, 2);
  EXPECT(fake::opened.container_per_runner);
  EXPECT_EQ(weights->number, 3);
}

TEST(a_container_that_cannot_be_opened_is_a_status) {
  const fake::Fresh fresh;
  Model model;
  std::shared_ptr<WeightSet> weights;
  fake::fail_next("open", AOTI_FAILED, "message", "detail");
  expect_failure(model.program.open(1, false, weights), StatusCode::kExecution);
  EXPECT(weights == nullptr);
}

TEST(a_run_reports_the_weights_that_it_ran_on) {
  const fake::Fresh fresh;
  Model model;
  const float value = 1;
  for (uint64_t number : {1, 2}) {
    model.serve(number, 10.0F * static_cast<float>(number));
    Run run;
    add(run.inputs, Shape({}), &value);
    REQUIRE_OK(model.program.run(run));
    EXPECT_EQ(run.number, number);
    EXPECT_EQ(first(run.outputs[0].view), 10.0F * static_cast<float>(number) + 1);
    EXPECT_EQ(fake::counts.containers, 1);  // the one before was closed
  }
}

TEST(a_program_without_weights_or_after_its_end_does_not_run) {
  const fake::Fresh fresh;
  Model model;
  Run run;
  EXPECT_EQ(model.program.run(run).code, StatusCode::kUnset);
  model.serve();
  model.program.close();
  EXPECT_EQ(fake::counts.containers, 0);
  EXPECT_EQ(model.program.run(run).code, StatusCode::kClosed);
  EXPECT_EQ(fake::counts.runs, 0);
  std::shared_ptr<WeightSet> weights;
  REQUIRE_OK(model.program.open(2, false, weights));
  EXPECT(!model.program.serve(std::move(weights)));
  EXPECT_EQ(fake::counts.containers, 0);
}

// -- runs -----------------------------------------------------------------------------------------

TEST(every_input_has_an_output) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const float one[] = {1, 2}, other[] = {3};
  Run run;
  add(run.inputs, Shape({2}), one);
  add(run.inputs, Shape({}), other);
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(run.outputs.size(), 2);
  EXPECT_EQ(run.outputs[0].view.shape[0], 2);
  EXPECT_EQ(first(run.outputs[1].view), 3.0F);
  EXPECT(run.outputs.engine() == &fake::engine());
}

TEST(a_model_may_have_neither_inputs_nor_outputs) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  Run run;
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(run.outputs.size(), 0);
}

TEST(a_failure_of_the_engine_is_a_status_with_its_texts) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const float value = 1;
  Owner owner;
  {
    Run run;
    add(run.inputs, Shape({}), &value);
    run.inputs.set_owner(&owner, Owner::release);
    fake::fail_next("run", AOTI_FAILED, "message", "detail");
    expect_failure(model.program.run(run), StatusCode::kExecution);
    fake::fail_next("run", AOTI_OUT_OF_MEMORY, "message", "detail");
    expect_failure(model.program.run(run), StatusCode::kNoMemory);
    EXPECT_OK(model.program.run(run));  // its runner came back
    EXPECT_OK(model.program.run(run));
    EXPECT_EQ(owner.released, 0);
  }
  EXPECT_EQ(owner.released, 1);
}

TEST(a_run_that_fails_after_it_asked_for_room_leaves_no_outputs) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const float value = 1;
  Run run;
  add(run.inputs, Shape({}), &value);
  REQUIRE_OK(model.program.run(run));
  fake::fail_next("outputs", AOTI_FAILED, "message", "detail");
  expect_failure(model.program.run(run), StatusCode::kExecution);
  EXPECT_EQ(fake::counts.tensors, 0);  // those of the run before included
}

TEST(no_room_for_the_outputs_is_out_of_memory) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const float value = 1;
  Run run;
  add(run.inputs, Shape({}), &value);
  fake::settings.reserved = SIZE_MAX / 2;
  EXPECT_EQ(model.program.run(run).code, StatusCode::kNoMemory);
}

TEST(an_engine_that_takes_an_owner_gives_it_back_once) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  float value = 1;
  Owner owner;
  fake::settings.take_owners = true;
  fake::settings.lend_inputs = true;
  Tensor output;
  {
    Run run;
    add(run.inputs, Shape({}), &value);
    run.inputs.set_owner(&owner, Owner::release);
    REQUIRE_OK(model.program.run(run));
    REQUIRE_OK(run.outputs.take(0, output));
  }
  EXPECT_EQ(owner.released, 0);  // the output lies in the input
  EXPECT_EQ(output.data(), static_cast<void*>(&value));
  output.reset();
  EXPECT_EQ(owner.released, 1);
}

TEST(a_run_without_the_gil_is_the_same_run) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const float value = 1;
  Run run;
  add(run.inputs, Shape({}), &value);
  REQUIRE_OK(model.program.run_without_gil(run));
  EXPECT_EQ(first(run.outputs[0].view), 1.0F);
}

TEST(a_run_has_as_many_threads_as_the_program_says) {
  const fake::Fresh fresh;
  Program program(fake::engine(), "", "", 1, kCpu, 2);
  std::shared_ptr<WeightSet> weights;
  REQUIRE_OK(program.open(1, false, weights));
  REQUIRE(program.serve(std::move(weights)));
  int32_t seen = 0;
  fake::settings.during_run = [&](std::size_t) { seen = fake::threads; };
  Run run;
  REQUIRE_OK(program.run(run));
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(fake::threads, 4);
  fake::fail_next("run", AOTI_FAILED, "message", "detail");
  expect_failure(program.run(run), StatusCode::kExecution);
  EXPECT_EQ(fake::threads, 4);
  const int before = fake::counts.runs;
  fake::fail_next("set_num_threads", AOTI_FAILED, "message", "detail");
  expect_failure(program.run(run), StatusCode::kExecution);
  EXPECT_EQ(fake::counts.runs, before);
  EXPECT_OK(program.run(run));
}

TEST(many_threads_run_and_swap_weights) {
  const fake::Fresh fresh;
  Model model;
  model.serve(1, 1);
  std::atomic<bool> stop{false};
  std::thread swapping([&] {
    for (int number = 2; number < 40; ++number) {
      model.serve(static_cast<uint64_t>(number), static_cast<float>(number));
    }
    stop = true;
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const float value = 0;
      while (!stop) {
        Run run;
        add(run.inputs, Shape({}), &value);
        const Status status = model.program.run_without_gil(run);
        if (status.code != StatusCode::kBusy) {
          EXPECT_OK(status);
          EXPECT_EQ(first(run.outputs[0].view), static_cast<float>(run.number));
        }
      }
    });
  }
  swapping.join();
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(fake::counts.containers, 1);
}

// -- bound inputs ---------------------------------------------------------------------------------

TEST(bound_inputs_are_read_anew_in_every_run) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  float input = 1;
  Owner owner;
  AotiBinding* binding = nullptr;
  fake::settings.take_owners = true;
  {
    InputList inputs;
    add(inputs, Shape({}), &input);
    inputs.set_owner(&owner, Owner::release);
    REQUIRE_OK(model.program.bind(inputs, binding));
  }
  for (float value : {2.0F, 3.0F}) {
    input = value;
    Run run;
    run.binding = binding;
    REQUIRE_OK(model.program.run(run));
    EXPECT_EQ(first(run.outputs[0].view), value);
  }
  EXPECT_EQ(owner.released, 0);
  model.program.unbind(binding);
  EXPECT_EQ(owner.released, 1);
}

TEST(inputs_that_cannot_be_bound_are_a_status) {
  const fake::Fresh fresh;
  Model model;
  InputList inputs;
  AotiBinding* binding = nullptr;
  fake::fail_next("bind", AOTI_FAILED, "message", "detail");
  expect_failure(model.program.bind(inputs, binding), StatusCode::kExecution);
  EXPECT(binding == nullptr);
}

TEST(a_binding_is_timed_on_one_runner) {
  const fake::Fresh fresh;
  Model model;
  const float input = 1;
  InputList inputs;
  add(inputs, Shape({}), &input);
  AotiBinding* binding = nullptr;
  REQUIRE_OK(model.program.bind(inputs, binding));
  double seconds = -1;
  EXPECT_EQ(model.program.time_runs(binding, 3, seconds).code, StatusCode::kUnset);
  EXPECT_EQ(seconds, -1.0);
  model.serve();
  REQUIRE_OK(model.program.time_runs(binding, 3, seconds));
  EXPECT_EQ(fake::counts.runs, 3);
  EXPECT(seconds >= 0 && seconds < 10);
  fake::fail_next("outputs", AOTI_FAILED, "message", "detail");
  expect_failure(model.program.time_runs(binding, 3, seconds), StatusCode::kExecution);
  EXPECT_EQ(fake::counts.runs, 4);
  model.program.unbind(binding);
}

TEST(a_device_is_waited_for_before_its_time_is_taken) {
  const fake::Fresh fresh;
  Program program(fake::engine_with_devices(), "", "", 1, fake::kDevice, 0);
  std::shared_ptr<WeightSet> weights;
  REQUIRE_OK(program.open(1, false, weights));
  REQUIRE(program.serve(std::move(weights)));
  InputList inputs;
  AotiBinding* binding = nullptr;
  REQUIRE_OK(program.bind(inputs, binding));
  double seconds = -1;
  REQUIRE_OK(program.time_runs(binding, 3, seconds));
  EXPECT(fake::log == std::vector<std::string>({"synchronize 0"}));
  fake::fail_next("synchronize", AOTI_FAILED, "message", "detail");
  expect_failure(program.time_runs(binding, 3, seconds), StatusCode::kExecution);
  program.unbind(binding);
}

// -- values ---------------------------------------------------------------------------------------

TEST(the_first_input_with_a_value_out_of_range_is_found) {
  const int64_t symbols[] = {4};
  std::vector<InputSpec> specs(4);
  for (std::size_t i = 1; i < 4; ++i) {
    specs[i].bounded = true;
    specs[i].low = {0, -1, 0};   // -4
    specs[i].high = {0, 1, -1};  // 3
  }
  int64_t values[] = {9, 3, -4, 0};
  InputList inputs;
  for (int64_t& value : values) {
    add(inputs, Shape({}), &value, kInt64);
  }
  EXPECT_EQ(find_out_of_range(specs, inputs, symbols), -1);
  values[3] = 4;
  EXPECT_EQ(find_out_of_range(specs, inputs, symbols), 3);
  values[2] = -5;
  EXPECT_EQ(find_out_of_range(specs, inputs, symbols), 2);
}

TEST(inputs_on_a_device_are_not_looked_at) {
  std::vector<InputSpec> specs(1);
  specs[0].bounded = true;
  const Shape shape({1});
  ArrayView array = shape.array(nullptr, kInt64);
  array.device = fake::kDevice;
  InputList inputs;
  REQUIRE_OK(inputs.add(array, shape.strides.data()));
  EXPECT_EQ(find_out_of_range(specs, inputs, nullptr), -1);
}

}  // namespace aoti
