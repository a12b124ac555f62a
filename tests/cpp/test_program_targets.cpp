#include <aoti/engine/program.h>

#include "arrays.h"
#include "expect.h"
#include "fake_engine.h"
#include "programs.h"

#include <utility>
#include <vector>

namespace aoti {

TEST(outputs_are_copied_to_their_targets) {
  const fake::Fresh fresh;
  Model model;
  model.serve(1, 10);
  const float input[] = {1, 2, 3, 4};
  float dense[4] = {}, transposed[4] = {};
  const std::vector<Tensor> targets = {
      over(Shape({2, 2}), dense), Tensor(), over(Shape({2, 2}, {1, 2}), transposed)};
  Run run;
  for (int i = 0; i < 3; ++i) {
    add(run.inputs, Shape({2, 2}), input);
  }
  run.targets = &targets;
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(run.wrong, -1);
  EXPECT_EQ(dense[1], 12.0F);
  EXPECT_EQ(transposed[1], 13.0F);
  EXPECT_EQ(transposed[2], 12.0F);
  EXPECT(run.outputs[1].handle != nullptr);  // an undefined target leaves the output to the caller
}

TEST(nothing_is_written_unless_all_targets_fit) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const float input[] = {1, 2};
  float fits[2] = {7, 7}, other[4] = {7, 7, 7, 7};
  const std::vector<Tensor> wrong_targets = {
      over(Shape({2}), other, kInt32),
      over(Shape({1}), other),
      over(Shape({3}), other),
      over(Shape({2, 1}), other),
      over(Shape({}), other),
  };
  for (const Tensor& wrong : wrong_targets) {
    const std::vector<Tensor> targets = {over(Shape({2}), fits), wrong};
    Run run;
    add(run.inputs, Shape({2}), input);
    add(run.inputs, Shape({2}), input);
    run.targets = &targets;
    REQUIRE_OK(model.program.run(run));
    EXPECT_EQ(run.wrong, 1);
    EXPECT_EQ(fits[0], 7.0F);
    EXPECT_EQ(other[0], 7.0F);
  }
  const std::vector<Tensor> too_few = {over(Shape({2}), fits)};
  Run run;
  add(run.inputs, Shape({2}), input);
  add(run.inputs, Shape({2}), input);
  run.targets = &too_few;
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(run.wrong, 0);
  EXPECT_EQ(fits[0], 7.0F);
}

TEST(empty_outputs_fit_empty_targets) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const std::vector<Tensor> targets = {over(Shape({0, 3}), nullptr)};
  Run run;
  add(run.inputs, Shape({0, 3}), nullptr);
  run.targets = &targets;
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(run.wrong, -1);
}

TEST(a_run_that_fails_writes_to_no_target) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  const float input = 1;
  float target = 7;
  const std::vector<Tensor> targets = {over(Shape({}), &target)};
  Run run;
  add(run.inputs, Shape({}), &input);
  run.targets = &targets;
  fake::fail_next("outputs", AOTI_FAILED, "message", "detail");
  expect_failure(model.program.run(run), StatusCode::kExecution);
  EXPECT_EQ(target, 7.0F);
}

TEST(a_target_may_be_the_input_that_its_output_lies_in) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  fake::settings.lend_inputs = true;
  float memory[] = {1, 2, 3, 4};
  const std::vector<Tensor> targets = {over(Shape({2, 2}), memory)};
  Run run;
  add(run.inputs, Shape({2, 2}), memory);
  run.targets = &targets;
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(memory[1], 2.0F);
  EXPECT_EQ(memory[3], 4.0F);
}

TEST(a_target_may_be_another_layout_of_the_input_that_its_output_lies_in) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  fake::settings.lend_inputs = true;
  float memory[] = {1, 2, 3, 4};
  const std::vector<Tensor> targets = {over(Shape({2, 2}, {1, 2}), memory)};
  Run run;
  add(run.inputs, Shape({2, 2}), memory);
  run.targets = &targets;
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(memory[1], 3.0F);
  EXPECT_EQ(memory[2], 2.0F);
}

TEST(inputs_may_change_places) {
  const fake::Fresh fresh;
  Model model;
  model.serve();
  fake::settings.lend_inputs = true;
  fake::settings.reversed = true;
  float one[] = {1, 2}, other[] = {3, 4};
  const std::vector<Tensor> targets = {over(Shape({2}), one), over(Shape({2}), other)};
  Run run;
  add(run.inputs, Shape({2}), one);
  add(run.inputs, Shape({2}), other);
  run.targets = &targets;
  REQUIRE_OK(model.program.run(run));
  EXPECT_EQ(one[0], 3.0F);
  EXPECT_EQ(other[1], 2.0F);
}

}  // namespace aoti
