#include <aoti/engine/weight_set.h>

#include "arrays.h"
#include "expect.h"
#include "fake_engine.h"

#include <memory>
#include <string>
#include <vector>

namespace aoti {

namespace {

std::unique_ptr<WeightSet> make(uint64_t number = 1) {
  AotiOpenOptions options{};
  options.path = options.model_name = "";
  options.num_runners = 1;
  AotiContainer* container = nullptr;
  REQUIRE(fake::engine().open(&options, &container) == AOTI_OK);
  return std::make_unique<WeightSet>(fake::engine(), container, number);
}

Tensor weight(float value, Owner* owner) {
  // Memory of its own, so that a use after it was given back is found.
  struct Kept {
    float value;
    Owner* owner;
  };
  auto kept = std::make_unique<Kept>(Kept{value, owner});
  const DLTensor view = Shape({}).over(&kept->value, kFloat32);
  return Tensor::over(view, kept.release(), [](void* self) {
    const std::unique_ptr<Kept> freed(static_cast<Kept*>(self));
    Owner::release(freed->owner);
  });
}

void expect_failure(const Status& status, StatusCode code = StatusCode::kExecution) {
  EXPECT_EQ(status.code, code);
  EXPECT_EQ(status.message, "message");
  EXPECT_EQ(status.detail, "detail");
}

}  // namespace

TEST(the_container_is_closed_with_its_weights) {
  const fake::Fresh fresh;
  {
    const auto weights = make(7);
    EXPECT_EQ(weights->number, 7);
    EXPECT_EQ(fake::counts.containers, 1);
  }
  EXPECT_EQ(fake::counts.containers, 0);
}

TEST(weights_describe_themselves) {
  const fake::Fresh fresh;
  const auto weights = make();
  std::vector<std::string> spec, fqns;
  std::vector<ConstantInfo> constants;
  REQUIRE_OK(weights->describe(spec, fqns, constants));
  EXPECT(spec == std::vector<std::string>({"in spec", "out spec"}));
  EXPECT(fqns == std::vector<std::string>({"layer.weight", "layer.packed"}));
  REQUIRE(constants.size() == 2);
  EXPECT_EQ(constants[0].name, "w");
  EXPECT_EQ(constants[0].fqn, "layer.weight");
  EXPECT_EQ(constants[0].dtype, kFloat32);
  EXPECT_EQ(constants[1].dtype, kNoDType);
}

TEST(what_an_engine_cannot_describe_is_a_status) {
  const fake::Fresh fresh;
  const auto weights = make();
  for (const char* function : {"visit_call_spec", "visit_fqns", "visit_constants"}) {
    std::vector<std::string> spec, fqns;
    std::vector<ConstantInfo> constants;
    fake::fail_next(function, AOTI_FAILED, "message", "detail");
    expect_failure(weights->describe(spec, fqns, constants));
  }
}

TEST(given_weights_are_not_copied_and_outlive_the_container) {
  const fake::Fresh fresh;
  Owner owner;
  {
    const auto weights = make();
    std::vector<Tensor> tensors = {weight(5, &owner)};
    const void* data = tensors[0].data();
    REQUIRE_OK(weights->set({"w"}, std::move(tensors), true));
    EXPECT(fake::opened.folded);
    EXPECT_EQ(owner.released, 0);
    std::vector<std::string> fqns;
    std::vector<Tensor> listed;
    REQUIRE_OK(weights->list(fqns, listed));
    EXPECT_EQ(listed[0].data(), data);
  }
  EXPECT_EQ(fake::opened.last_closed_weight, 5.0F);  // it was still there when `close` read it
  EXPECT_EQ(owner.released, 1);
}

TEST(weights_that_are_given_later_do_not_free_earlier_ones) {
  const fake::Fresh fresh;
  Owner first, second;
  {
    const auto weights = make();
    REQUIRE_OK(weights->set({"w"}, {weight(5, &first)}, false));
    EXPECT(!fake::opened.folded);
    REQUIRE_OK(weights->set({"p"}, {weight(6, &second)}, false));
    EXPECT_EQ(first.released, 0);
  }
  EXPECT_EQ(fake::opened.last_closed_weight, 5.0F);
  EXPECT_EQ(first.released, 1);
  EXPECT_EQ(second.released, 1);
}

TEST(weights_that_an_engine_refuses_are_given_back_with_the_set) {
  const fake::Fresh fresh;
  Owner owner;
  {
    const auto weights = make();
    const Status status = weights->set({"other"}, {weight(5, &owner)}, false);
    EXPECT_EQ(status.code, StatusCode::kExecution);
    EXPECT_EQ(status.message, "no constant is called other");
    EXPECT_EQ(owner.released, 0);  // a part of the container may use them
  }
  EXPECT_EQ(owner.released, 1);
}

TEST(weights_are_listed_with_those_that_are_packed_left_undefined) {
  const fake::Fresh fresh;
  const auto weights = make();
  std::vector<std::string> fqns;
  std::vector<Tensor> tensors;
  REQUIRE_OK(weights->list(fqns, tensors));
  EXPECT(fqns == std::vector<std::string>({"layer.weight", "layer.packed"}));
  EXPECT(tensors[0].defined());
  EXPECT(!tensors[1].defined());
  EXPECT_EQ(fake::counts.tensors, 1);
}

TEST(a_list_that_fails_gives_every_handle_back) {
  const fake::Fresh fresh;
  const auto weights = make();
  std::vector<std::string> fqns;
  std::vector<Tensor> tensors;
  fake::fail_next("visit_weights", AOTI_OUT_OF_MEMORY, "message", "detail");
  expect_failure(weights->list(fqns, tensors), StatusCode::kNoMemory);
  EXPECT_EQ(fqns.size(), 0);
  EXPECT_EQ(tensors.size(), 0);
  EXPECT_EQ(fake::counts.tensors, 0);
}

}  // namespace aoti
