#include <aoti/libtorch/containers.h>
#include <aoti/libtorch/devices.h>
#include <aoti/libtorch/errors.h>
#include <aoti/libtorch/tensors.h>

#include <ATen/DynamicLibrary.h>
#include <ATen/Tensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace aoti::libtorch {

namespace {

using Loader = torch::inductor::AOTIModelPackageLoader;
using Runner = torch::inductor::AOTIModelContainerRunner;

// Reads the protected members of a runner. Never made.
class RunnerAccess : public Runner {
 public:
  RunnerAccess() = delete;

  // The container's own constants; `extract_constants_map` makes others over the same memory.
  static torch::inductor::TensorConstantMap constants(Runner& runner) {
    torch::inductor::TensorConstantMap map;
    const auto extract = runner.*(&RunnerAccess::extract_constants_map_func_);
    extract(
        runner.*(&RunnerAccess::container_handle_),
        reinterpret_cast<AOTInductorConstantMapHandle>(&map),
        /*use_inactive=*/false);
    return map;
  }

  // How many inputs the code takes.
  static std::size_t count_inputs(Runner& runner) {
    at::DynamicLibrary& code = *(runner.*(&RunnerAccess::model_so_));
    const auto count = reinterpret_cast<decltype(&AOTInductorModelContainerGetNumInputs)>(
        code.sym("AOTInductorModelContainerGetNumInputs"));
    std::size_t inputs = 0;
    if (count(runner.*(&RunnerAccess::container_handle_), &inputs) != AOTI_RUNTIME_SUCCESS) {
      throw std::runtime_error("the code of the model does not say how many inputs it takes");
    }
    return inputs;
  }
};

// A version of the weights, in one container or in one for each runner.
class Container {
 public:
  explicit Container(const AotiOpenOptions& options)
      : device_(device_of(options.device)), per_runner_(options.container_per_runner != 0) {
    // With a container for each runner, runs take no lock: two threads that meet in the locks of a
    // shared one lose as much time there as a small model runs. But each has its own copy of the
    // weights inside the code, and of what is folded.
    for (std::size_t i = 0; i < (per_runner_ ? options.num_runners : 1); ++i) {
      loaders_.push_back(
          std::make_unique<Loader>(
              options.path,
              options.model_name,
              /*run_single_threaded=*/per_runner_,
              per_runner_ ? 1 : options.num_runners,
              device_.index()));  // -1 for the CPU
    }
    num_inputs_ = RunnerAccess::count_inputs(*loaders_.front()->get_runner());
    note_storages();
  }

  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  ~Container() {
    // Whatever this throws has nowhere to go.
    static_cast<void>(guarded([this] { free_all(); }));
  }

  void run(
      std::size_t runner, std::vector<at::Tensor>&& inputs, AotiReserve reserve, void* sink) const {
    const OnDevice on(device_);
    give_all(loader(runner).boxed_run(std::move(inputs)), reserve, sink);
  }

  void run_bound(
      std::size_t runner,
      const std::vector<at::Tensor>& inputs,
      AotiReserve reserve,
      void* sink) const {
    const OnDevice on(device_);
    give_all(loader(runner).run(inputs), reserve, sink);
  }

  // To be called before tensors are made of the inputs. libtorch checks the number too, but then
  // loses the tensors: it has given up its handles to them, and the code has not taken them over.
  void check_count(std::size_t inputs) const {
    if (inputs != num_inputs_) [[unlikely]] {
      throw std::invalid_argument(
          "wrong number of inputs: the model takes " + std::to_string(num_inputs_) +
          ", and was given " + std::to_string(inputs));
    }
  }

  // What all containers have in common.
  Loader& loader() const noexcept { return *loaders_.front(); }

  void set_constants(
      const char* const* names, const DLTensor* tensors, std::size_t count, bool fold) {
    for (const auto& each : loaders_) {
      set_constants(*each->get_runner(), names, tensors, count, fold);
    }
    synchronize(device_);  // runs may come on any stream
    note_storages();
  }

 private:
  Loader& loader(std::size_t runner) const { return *loaders_.at(per_runner_ ? runner : 0); }

  // Hands out the outputs of a run: all of them, or none if it throws.
  void give_all(std::vector<at::Tensor>&& outputs, AotiReserve reserve, void* sink) const {
    AotiTensor* const room = reserve(sink, outputs.size());
    if (room == nullptr && !outputs.empty()) {
      throw std::bad_alloc();
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      at::Tensor& output = outputs[i];
      if (output.is_conj() || output.is_neg()) [[unlikely]] {
        output = output.resolve_conj().resolve_neg();
      }
      describe(output, room[i]);
      // The caller may close this container as soon as the run is over.
      if (room[i].borrowed != 0 && lies_in_weight(output)) [[unlikely]] {
        output = output.clone(at::MemoryFormat::Contiguous);
        describe(output, room[i]);
      }
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      room[i].handle = outputs[i].unsafeReleaseTensorImpl();
    }
  }

  bool lies_in_weight(const at::Tensor& tensor) const noexcept {
    return std::binary_search(
        storages_.begin(), storages_.end(), tensor.storage().unsafeGetStorageImpl());
  }

  void set_constants(
      Runner& runner,
      const char* const* names,
      const DLTensor* tensors,
      std::size_t count,
      bool fold) {
    std::unordered_map<std::string, at::Tensor> map;
    for (std::size_t i = 0; i < count; ++i) {
      // Without an owner, so that an output that lies in this memory is recognised; and a tensor
      // that no other container has.
      at::Tensor lent = borrow(tensors[i]);
      map.emplace(names[i], lent);
      lent_.emplace(lent.unsafeGetTensorImpl(), std::move(lent));
    }
    if (per_runner_) {
      // Into the buffer that it has: in a model that torch 2.11 compiled, a run without locks looks
      // at the state of the first one only. That run folds; asked before, the container would put
      // its model where the run does not look (run_single_threaded in model_container.h).
      runner.update_constant_buffer(
          map, /*use_inactive=*/false, /*validate_full_updates=*/false, /*user_managed=*/true);
      return;
    }
    // By way of the second buffer: what the first one allocated for the weights inside the code is
    // then freed.
    runner.update_constant_buffer(
        map, /*use_inactive=*/true, /*validate_full_updates=*/false, /*user_managed=*/true);
    map.clear();
    runner.swap_constant_buffer();
    runner.free_inactive_constant_buffer();
    if (fold) {
      const OnDevice on(device_);
      runner.run_const_fold(/*use_inactive=*/false);
    }
  }

  void note_storages() {
    storages_.clear();
    for (const auto& each : loaders_) {
      for (const auto& [fqn, tensor] : each->get_runner()->extract_constants_map(false)) {
        if (tensor.defined() && tensor.has_storage()) {
          storages_.push_back(tensor.storage().unsafeGetStorageImpl());
        }
      }
    }
    std::sort(storages_.begin(), storages_.end());
  }

  void free_all() {
    synchronize(device_);  // it may still work with the weights
    storages_.clear();
    // A container makes its own tensor over each constant that it is told to leave to its user, and
    // never frees it (MaybeOwningAtenTensorHandle in aoti_runtime/utils.h). Once the container is
    // gone, nobody else has these tensors: those that are left are freed here.
    std::vector<std::pair<at::Tensor*, at::Tensor>> copies;
    for (const auto& each : loaders_) {
      for (const auto& [name, copy] : RunnerAccess::constants(*each->get_runner())) {
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
    for (const auto& [tensor, lent] : lent_) {  // where two constants have one name
      if (lent.use_count() > 1) {
        c10::raw::intrusive_ptr::decref(lent.unsafeGetTensorImpl());
      }
    }
  }

  const c10::Device device_;
  const bool per_runner_;
  std::size_t num_inputs_ = 0;
  std::vector<std::unique_ptr<Loader>> loaders_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> lent_;
  std::vector<const c10::StorageImpl*> storages_;  // of the weights, sorted
};

struct Binding {
  std::vector<at::Tensor> inputs;
};

Container& of(AotiContainer* container) noexcept {
  return *reinterpret_cast<Container*>(container);
}

}  // namespace

int32_t open(const AotiOpenOptions* options, AotiContainer** container) noexcept {
  return guarded([&] {
    *container = reinterpret_cast<AotiContainer*>(std::make_unique<Container>(*options).release());
  });
}

void close(AotiContainer* container) noexcept {
  const std::unique_ptr<Container> closed(reinterpret_cast<Container*>(container));
}

int32_t run(
    AotiContainer* container,
    std::size_t runner,
    AotiInput* inputs,
    std::size_t count,
    AotiReserve reserve,
    void* sink) noexcept {
  return guarded([&] {
    of(container).check_count(count);
    of(container).run(runner, take(inputs, count), reserve, sink);
  });
}

int32_t bind(AotiInput* inputs, std::size_t count, AotiBinding** binding) noexcept {
  return guarded([&] {
    auto made = std::make_unique<Binding>();
    made->inputs = take(inputs, count);
    *binding = reinterpret_cast<AotiBinding*>(made.release());
  });
}

int32_t run_bound(
    AotiContainer* container,
    std::size_t runner,
    const AotiBinding* binding,
    AotiReserve reserve,
    void* sink) noexcept {
  return guarded([&] {
    const std::vector<at::Tensor>& inputs = reinterpret_cast<const Binding*>(binding)->inputs;
    of(container).check_count(inputs.size());
    of(container).run_bound(runner, inputs, reserve, sink);
  });
}

void unbind(AotiBinding* binding) noexcept {
  const std::unique_ptr<Binding> unbound(reinterpret_cast<Binding*>(binding));
}

int32_t visit_call_spec(AotiContainer* container, AotiVisitText visit, void* visitor) noexcept {
  return guarded([&] {
    for (const std::string& spec : of(container).loader().get_call_spec()) {
      visit(visitor, spec.c_str());
    }
  });
}

int32_t visit_fqns(AotiContainer* container, AotiVisitText visit, void* visitor) noexcept {
  return guarded([&] {
    for (const std::string& fqn : of(container).loader().get_constant_fqns()) {
      visit(visitor, fqn.c_str());
    }
  });
}

int32_t visit_constants(AotiContainer* container, AotiVisitConstant visit, void* visitor) noexcept {
  return guarded([&] {
    const Runner& runner = *of(container).loader().get_runner();
    const auto dtypes = runner.getConstantNamesToDtypes();
    for (const auto& [name, fqn] : runner.getConstantNamesToOriginalFQNs()) {
      const auto dtype = static_cast<c10::ScalarType>(dtypes.at(name));
      DLDataType type{};  // without lanes, if DLPack does not have it: that does not forbid a run
      static_cast<void>(guarded([&] { type = dl_type_of(dtype); }));
      visit(visitor, name.c_str(), fqn.c_str(), type);
    }
  });
}

// They are not copied. The memory of those that lie in the code is the container's.
int32_t visit_weights(AotiContainer* container, AotiVisitWeight visit, void* visitor) noexcept {
  return guarded([&] {
    Runner& runner = *of(container).loader().get_runner();
    for (const auto& [fqn, tensor] : runner.extract_constants_map(false)) {
      if (!tensor.defined()) {
        continue;
      }
      AotiTensor weight{};
      const int32_t code = guarded([&, &tensor = tensor] { weight = give(at::Tensor(tensor)); });
      visit(visitor, fqn.c_str(), code == AOTI_OK ? &weight : nullptr);
    }
  });
}

int32_t set_constants(
    AotiContainer* container,
    const char* const* names,
    const DLTensor* tensors,
    std::size_t count,
    int32_t fold) noexcept {
  return guarded([&] { of(container).set_constants(names, tensors, count, fold != 0); });
}

}  // namespace aoti::libtorch
