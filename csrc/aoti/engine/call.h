#pragma once

// What one run takes and gives.

#include <aoti/core/array_view.h>
#include <aoti/core/small_list.h>
#include <aoti/core/tensor.h>
#include <aoti/engine/engine.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace aoti {

// The inputs of a run. Their sizes and strides are copied here while the GIL is held: numpy frees
// those of an array whose shape another thread assigns.
class InputList {
 public:
  InputList() = default;
  InputList(const InputList&) = delete;
  InputList& operator=(const InputList&) = delete;
  ~InputList() {
    for (AotiInput& input : inputs_) {
      if (input.owner != nullptr) {
        input.release(input.owner);
      }
    }
  }

  void reserve(std::size_t count) { inputs_.reserve(count); }

  // Adds a tensor over an array's memory, with these strides in elements. The caller keeps the
  // memory alive until the run ends, unless `set_owner` says otherwise.
  Status add(const ArrayView& array, const int64_t* strides) noexcept {
    return catch_all([&]() -> Status {
      const auto rank = static_cast<std::size_t>(array.rank);
      int64_t* numbers = room(2 * rank);
      std::copy_n(array.sizes, rank, numbers);
      std::copy_n(strides, rank, numbers + rank);
      AotiInput& input = inputs_.add();
      input.view.data = array.data;
      input.view.device = array.device;
      input.view.ndim = array.rank;
      input.view.dtype = dl_type_of(array.dtype);
      input.view.shape = numbers;
      input.view.strides = numbers + rank;
      return {};
    });
  }

  // Makes the last input keep its memory alive by an owner, which it takes.
  void set_owner(void* owner, Release release) noexcept {
    inputs_.back().owner = owner;
    inputs_.back().release = release;
  }

  // Puts a tensor of the same dtype and sizes in the place of an input and makes it the owner, so
  // that the run gives it back as soon as it is done with it. A former owner is given back.
  Status replace(std::size_t index, const Tensor& tensor) noexcept {
    return catch_all([&]() -> Status {
      AotiInput& input = inputs_[index];
      auto owner = std::make_unique<Tensor>(tensor);
      if (void* const before = std::exchange(input.owner, owner.release())) {
        input.release(before);
      }
      input.release = [](void* held) { delete static_cast<Tensor*>(held); };
      // The sizes and strides stay the list's own, whoever has the memory.
      std::copy_n(tensor.strides(), tensor.rank(), input.view.strides);
      input.view.data = tensor.data();
      input.view.device = tensor.device();
      return {};
    });
  }

  AotiInput* data() noexcept { return inputs_.data(); }
  const DLTensor& view(std::size_t index) const noexcept { return inputs_[index].view; }
  std::size_t size() const noexcept { return inputs_.size(); }

 private:
  int64_t* room(std::size_t count) {
    if (count > left_) {
      const std::size_t more = std::max<std::size_t>(count, 64);
      further_.push_back(std::make_unique_for_overwrite<int64_t[]>(more));
      next_ = further_.back().get();
      left_ = more;
    }
    left_ -= count;
    return std::exchange(next_, next_ + count);
  }

  static constexpr std::size_t kInline = 64;  // 8 inputs of 4 dimensions without an allocation

  int64_t inline_[kInline];
  int64_t* next_ = inline_;
  std::size_t left_ = kInline;
  std::vector<std::unique_ptr<int64_t[]>> further_;
  SmallList<AotiInput, 8> inputs_;
};

// A tensor that an engine made, with its handle.
class EngineTensor {
 public:
  explicit EngineTensor(const AotiEngine* engine) noexcept : engine_(engine) {}
  EngineTensor(const EngineTensor&) = delete;
  EngineTensor(EngineTensor&& other) noexcept
      : engine_(other.engine_), made_(std::exchange(other.made_, {})) {}
  EngineTensor& operator=(EngineTensor&& other) noexcept {
    std::swap(engine_, other.engine_);
    std::swap(made_, other.made_);
    return *this;
  }
  ~EngineTensor() {
    if (made_.handle != nullptr) {
      engine_->release_tensor(made_.handle);
    }
  }

  const AotiEngine* engine() const noexcept { return engine_; }
  const AotiTensor& get() const noexcept { return made_; }
  AotiTensor* slot() noexcept { return &made_; }

  // Gives up the handle.
  void* release() noexcept { return std::exchange(made_.handle, nullptr); }

  // Hands the handle over to a tensor.
  Status into(Tensor& tensor) noexcept {
    return catch_all([&]() -> Status {
      tensor = Tensor::owned(made_.view, made_.handle, engine_->release_tensor);
      made_.handle = nullptr;
      return {};
    });
  }

 private:
  const AotiEngine* engine_;
  AotiTensor made_{};
};

// The outputs of a run, as the engine made them.
class OutputList {
 public:
  OutputList() = default;
  OutputList(const OutputList&) = delete;
  OutputList& operator=(const OutputList&) = delete;
  ~OutputList() { clear(); }

  // Room for `count` outputs of an engine; null if there is no memory. AotiReserve.
  static AotiTensor* reserve(void* self, std::size_t count) noexcept {
    auto& outputs = *static_cast<OutputList*>(self);
    try {
      outputs.made_.assign_zeros(count);
      return outputs.made_.data();
    } catch (...) {
      return nullptr;
    }
  }

  void start(const AotiEngine* engine) noexcept {
    clear();
    engine_ = engine;
  }

  std::size_t size() const noexcept { return made_.size(); }
  const AotiEngine* engine() const noexcept { return engine_; }
  AotiTensor& operator[](std::size_t index) noexcept { return made_[index]; }
  const AotiTensor& operator[](std::size_t index) const noexcept { return made_[index]; }

  // Gives up the handle of an output.
  void* release(std::size_t index) noexcept { return std::exchange(made_[index].handle, nullptr); }

  // Hands the handle of an output over to a tensor.
  Status take(std::size_t index, Tensor& tensor) noexcept {
    return catch_all([&]() -> Status {
      tensor = Tensor::owned(made_[index].view, made_[index].handle, engine_->release_tensor);
      made_[index].handle = nullptr;
      return {};
    });
  }

 private:
  void clear() noexcept {
    for (const AotiTensor& made : made_) {
      if (made.handle != nullptr) {
        engine_->release_tensor(made.handle);
      }
    }
    made_.clear();
  }

  const AotiEngine* engine_ = nullptr;
  SmallList<AotiTensor, 8> made_;
};

}  // namespace aoti
