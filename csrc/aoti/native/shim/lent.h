#pragma once

#include <aoti/native/shim/tensor.h>

#include <memory>
#include <vector>

namespace aoti::native {

// Keeps the handles that are copied on this thread while it lives. A container copies the handle of
// each constant that it leaves to its user, and never deletes that copy
// (MaybeOwningAtenTensorHandle in torch/csrc/inductor/aoti_runtime/utils.h).
class KeepCopies {
 public:
  explicit KeepCopies(std::vector<std::unique_ptr<Tensor>>& into) noexcept;
  ~KeepCopies();
  KeepCopies(const KeepCopies&) = delete;
  KeepCopies& operator=(const KeepCopies&) = delete;

  // Where copies go; null if nobody keeps them.
  static std::vector<std::unique_ptr<Tensor>>* current() noexcept;
};

}  // namespace aoti::native
