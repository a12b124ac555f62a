#pragma once

// One version of a model's weights, in a container of the engine, and its number. New weights go
// into a new container (the code is mapped once, so that takes about a millisecond), which takes
// the place of the old one between two runs. The two buffers inside a container are not used
// for that: folding the second one changes constants that were just set (model_container.h,
// update_constant_buffer), a failure in it leaves a runner with the wrong ones, and neither is
// there to go back to.

#include <aoti/core/status.h>
#include <aoti/core/tensor.h>
#include <aoti/engine/engine.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace aoti {

struct ConstantInfo {
  std::string name;  // in the code
  std::string fqn;
  DType dtype = kNoDType;
};

class WeightSet {
 public:
  // Takes the container.
  WeightSet(const AotiEngine& engine, AotiContainer* container, uint64_t number) noexcept
      : engine(engine), number(number), container_(container) {}
  ~WeightSet() { engine.close(container_); }  // before `given_`, which lies in its memory
  WeightSet(const WeightSet&) = delete;
  WeightSet& operator=(const WeightSet&) = delete;

  AotiContainer* container() const noexcept { return container_; }

  // The input and the output treespec, the FQNs of the constants, and each constant, those that are
  // folded at run time included.
  Status describe(
      std::vector<std::string>& call_spec,
      std::vector<std::string>& fqns,
      std::vector<ConstantInfo>& constants) const noexcept;

  // Gives the container its weights by their names in the code, before anything runs on it. They
  // are not copied, and are kept as long as this lives.
  Status set(
      const std::vector<std::string>& names, std::vector<Tensor>&& tensors, bool fold) noexcept;

  // The weights by their FQNs, not as copies: they are the container's. Undefined where one is
  // packed for an operator.
  Status list(std::vector<std::string>& fqns, std::vector<Tensor>& tensors) const noexcept;

  const AotiEngine& engine;
  const uint64_t number;

 private:
  AotiContainer* const container_;
  std::vector<Tensor> given_;
};

}  // namespace aoti
