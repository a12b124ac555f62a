#pragma once

// One set of weights in libtorch's containers, and its number. New weights go into containers of
// their own (the code is mapped once, so that takes about a millisecond), which take the place of
// the others between two runs. libtorch's own two buffers are not used for that:
// folding the second one changes constants that were just set (model_container.h,
// update_constant_buffer), a failure in it leaves a runner with the wrong ones, and neither is
// there to go back to.

#include <aoti/device.h>
#include <aoti/errors.h>
#include <aoti/fork.h>
#include <aoti/permits.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace aoti {

using Loader = torch::inductor::AOTIModelPackageLoader;
using Runner = torch::inductor::AOTIModelContainerRunner;

namespace detail {

// What a runner keeps to itself. Never made.
class RunnerAccess : public Runner {
 public:
  RunnerAccess() = delete;

  // The container's own constants; `extract_constants_map` gives others over the same memory.
  static torch::inductor::TensorConstantMap constants(Runner& runner) {
    torch::inductor::TensorConstantMap map;
    const auto extract = runner.*(&RunnerAccess::extract_constants_map_func_);
    extract(
        runner.*(&RunnerAccess::container_handle_),
        reinterpret_cast<AOTInductorConstantMapHandle>(&map),
        /*use_inactive=*/false);
    return map;
  }
};

}  // namespace detail

class Generation : public Served {
 public:
  Generation(uint64_t number, const Place& place) noexcept : number(number), place(place) {}

  ~Generation() override {
    static_cast<void>(guarded([&]() -> Failure {
      synchronize(place);  // its weights may be in use yet
      storages_.clear();
      // A container makes a tensor of its own over each that it is told to leave to its user, and
      // never frees it (MaybeOwningAtenTensorHandle in aoti_runtime/utils.h). Once it is gone,
      // nobody else has these: what is left of them is freed in its stead.
      std::vector<std::pair<at::Tensor*, at::Tensor>> copies;
      for (const auto& loader : loaders_) {
        for (const auto& [name, copy] : detail::RunnerAccess::constants(*loader->get_runner())) {
          if (const auto lent = lent_.find(copy->unsafeGetTensorImpl()); lent != lent_.end()) {
            copies.emplace_back(copy, std::move(lent->second));
          }
        }
      }
      loaders_.clear();
      for (const auto& [copy, lent] : copies) {
        if (lent.use_count() > 1) {
          const std::unique_ptr<at::Tensor> left(copy);
        }
      }
      for (const auto& [tensor, lent] : lent_) {  // of two constants of one name
        if (lent.use_count() > 1) {
          c10::raw::intrusive_ptr::decref(lent.unsafeGetTensorImpl());
        }
      }
      return {};
    }));
  }

  // Makes the containers. `apart` is one for each runner, which then runs without a lock: two
  // threads that meet in the locks of a shared one lose as much time there as a small model runs.
  // But each has its own copy of the weights that stand in the code, and of what is folded.
  void open(
      const std::string& path, const std::string& model_name, bool apart, std::size_t runners) {
    for (std::size_t i = 0; i < (apart ? runners : 1); ++i) {
      loaders_.push_back(
          std::make_unique<Loader>(
              path, model_name, /*run_single_threaded=*/apart, apart ? 1 : runners, place.index()));
    }
    apart_ = apart;
    note_storages();
  }

  // What a runner runs on.
  Loader& loader(std::size_t runner = 0) const noexcept {
    return *loaders_[loaders_.size() == 1 ? 0 : runner];
  }

  // Hands weights to the containers, by their names for them, instead of those that they have.
  // Nothing may run on them yet. They are not copied, and live as long as this does.
  void fill(const std::vector<std::string>& names, std::vector<at::Tensor>& tensors, bool fold) {
    owners_ = std::move(tensors);
    for (const auto& loader : loaders_) {
      fill(*loader->get_runner(), names, fold);
    }
    synchronize(place);  // runs may come on any stream
    note_storages();
  }

  // Whether a tensor lies in the memory of a weight.
  bool lends(const at::Tensor& tensor) const noexcept {
    return std::binary_search(
        storages_.begin(), storages_.end(), tensor.storage().unsafeGetStorageImpl());
  }

  const uint64_t number;
  const Place place;

 private:
  void fill(Runner& runner, const std::vector<std::string>& names, bool fold) {
    std::unordered_map<std::string, at::Tensor> map;
    for (std::size_t i = 0; i < names.size(); ++i) {
      // Without an owner, so that an output that lies in one is known for what it is; and a tensor
      // of this container alone.
      at::Tensor lent = detail::tensor_over(
          c10::DataPtr(owners_[i].data_ptr(), owners_[i].device()),
          static_cast<int>(owners_[i].scalar_type()),
          owners_[i].sizes(),
          owners_[i].strides());
      map.emplace(names[i], lent);
      lent_.emplace(lent.unsafeGetTensorImpl(), std::move(lent));
    }
    if (apart_) {
      // Into the buffer that it has: of a model that torch 2.11 compiled, a run without locks looks
      // at the state of the first one only. That run folds; asked before, the container would put
      // its model where the run does not look (run_single_threaded in model_container.h).
      runner.update_constant_buffer(
          map, /*use_inactive=*/false, /*validate_full_updates=*/false, /*user_managed=*/true);
      return;
    }
    // By way of the second buffer: what the first one allocated for the weights in the code is then
    // freed.
    runner.update_constant_buffer(
        map, /*use_inactive=*/true, /*validate_full_updates=*/false, /*user_managed=*/true);
    map.clear();
    runner.swap_constant_buffer();
    runner.free_inactive_constant_buffer();
    if (fold) {
      const OnDevice on(place);
      runner.run_const_fold(/*use_inactive=*/false);
    }
  }

  void note_storages() {
    storages_.clear();
    for (const auto& loader : loaders_) {
      for (const auto& [name, tensor] : loader->get_runner()->extract_constants_map(false)) {
        if (tensor.defined() && tensor.has_storage()) {
          storages_.push_back(tensor.storage().unsafeGetStorageImpl());
        }
      }
    }
    std::sort(storages_.begin(), storages_.end());
  }

  std::vector<std::unique_ptr<Loader>> loaders_;
  bool apart_ = false;
  std::vector<at::Tensor> owners_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> lent_;
  std::vector<const c10::StorageImpl*> storages_;
};

// What the container says of a constant.
struct ConstantFacts {
  std::string name;
  std::string fqn;
  int dtype = 0;
};

inline Failure open(
    Generation*& generation,
    const std::string& path,
    const std::string& model_name,
    bool apart,
    std::size_t num_runners,
    const Place& place,
    uint64_t number) noexcept {
  return guarded([&]() -> Failure {
    handle_forks();
    auto made = std::make_unique<Generation>(number, place);
    const std::lock_guard<std::mutex> lock(construction_mutex());
    made->open(path, model_name, apart, num_runners);
    generation = made.release();
    return {};
  });
}

inline Failure describe(
    const Generation& generation,
    std::vector<std::string>& call_spec,
    std::vector<std::string>& fqns,
    std::vector<ConstantFacts>& constants) noexcept {
  return guarded([&]() -> Failure {
    call_spec = generation.loader().get_call_spec();
    fqns = generation.loader().get_constant_fqns();
    const auto* runner = generation.loader().get_runner();
    const auto dtypes = runner->getConstantNamesToDtypes();
    for (const auto& [name, fqn] : runner->getConstantNamesToOriginalFQNs()) {
      constants.push_back({name, fqn, dtypes.at(name)});
    }
    return {};
  });
}

inline Failure fill(
    Generation& generation,
    const std::vector<std::string>& names,
    std::vector<at::Tensor>& tensors,
    bool fold) noexcept {
  return guarded([&]() -> Failure {
    generation.fill(names, tensors, fold);
    return {};
  });
}

// The weights by their fully qualified names. Not copies: they are the generation's. Undefined
// where one is no plain tensor, but packed for an operator.
inline Failure weights(
    const Generation& generation,
    std::vector<std::string>& fqns,
    std::vector<at::Tensor>& tensors) noexcept {
  return guarded([&]() -> Failure {
    for (auto& [fqn, tensor] : generation.loader().get_runner()->extract_constants_map(false)) {
      if (tensor.defined()) {
        const bool plain = tensor.layout() == c10::kStrided && usable(tensor.device()) &&
                           tensor.has_storage() && tensor.dim() <= kMaxRank;
        fqns.push_back(fqn);
        tensors.push_back(plain ? tensor : at::Tensor());
      }
    }
    return {};
  });
}

}  // namespace aoti
