#include <aoti/core/memory.h>
#include <aoti/core/small_list.h>
#include <aoti/native/code.h>
#include <aoti/native/containers.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/lent.h>
#include <aoti/native/shim/pool.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace aoti::native {

namespace {

// A tensor over the memory of a view. Takes the owner, if there is one, when the dtype is ours.
Tensor over(const DLTensor& view, AotiInput* input) {
  const auto rank = static_cast<std::size_t>(view.ndim);
  const ScalarType dtype = scalar_type_of(view.dtype);
  const Extents sizes{view.shape, rank}, strides{view.strides, rank};
  const bool owned = input != nullptr && input->owner != nullptr;
  void* const owner = owned ? std::exchange(input->owner, nullptr) : nullptr;
  return Tensor::over(view.data, dtype, sizes, strides, 0, owner, owned ? input->release : nullptr);
}

Tensor take(AotiInput& input) {
  if (input.view.device.device_type != kDLCPU) {
    throw std::invalid_argument("the native engine has no device but the CPU");
  }
  return over(input.view, &input);
}

// Handles that go into a run, or come out of it. Those that are left are deleted: the code sets an
// input to null when it takes it over, and an output when it makes it.
class Handles {
 public:
  Handles() = default;
  ~Handles() {
    for (Tensor* const handle : handles_) {
      const std::unique_ptr<Tensor> left(handle);
    }
  }
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;

  void add(Tensor&& tensor) {
    Tensor*& slot = handles_.add();
    slot = std::make_unique<Tensor>(std::move(tensor)).release();
  }
  void make_room(std::size_t count) { handles_.assign_zeros(count); }

  Tensor** data() noexcept { return handles_.data(); }
  std::size_t size() const noexcept { return handles_.size(); }
  Tensor& operator[](std::size_t index) noexcept { return *handles_[index]; }
  Tensor* give(std::size_t index) noexcept { return std::exchange(handles_[index], nullptr); }

 private:
  SmallList<Tensor*, 8> handles_;
};

class File {
 public:
  explicit File(const std::string& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) {
      throw std::system_error(errno, std::generic_category(), path);
    }
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor() const noexcept { return descriptor_; }

 private:
  const int descriptor_;
};

void describe(const Tensor& tensor, AotiTensor& described) {
  if (!tensor.defined()) [[unlikely]] {
    throw std::invalid_argument("the model returned a tensor that is not defined");
  }
  described.view = tensor.view();
  // An empty tensor has no memory that somebody could own.
  described.borrowed = tensor.data() != nullptr && tensor.storage().borrowed() ? 1 : 0;
}

// A version of the weights, in one container or in one for each runner.
class Container {
 public:
  explicit Container(const AotiOpenOptions& options)
      : code_(options.path), per_runner_(options.container_per_runner != 0) {
    const std::size_t models = per_runner_ ? 1 : options.num_runners;
    for (std::size_t i = 0; i < (per_runner_ ? options.num_runners : 1); ++i) {
      forget_operator_failure();
      ModelContainer* made = nullptr;
      code_.check(code_.create(&made, models, "cpu", nullptr), "load");
      containers_.emplace_back(made, Delete{&code_});
    }
    if (const std::string blob = blob_of(options.path); access(blob.c_str(), F_OK) == 0) {
      give_blob(blob);
    }
    code_.check(code_.count_inputs(first(), &num_inputs_), "count its inputs");
    code_.check(code_.count_outputs(first(), &num_outputs_), "count its outputs");
    note_storages();
  }

  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  // To be called before tensors are made of the inputs, which the code would not take over.
  void check_count(std::size_t inputs) const {
    if (inputs != num_inputs_) [[unlikely]] {
      throw std::invalid_argument(
          "wrong number of inputs: the model takes " + std::to_string(num_inputs_) +
          ", and was given " + std::to_string(inputs));
    }
  }

  void run(std::size_t runner, Handles& inputs, AotiReserve reserve, void* sink) const {
    forget_operator_failure();
    Handles outputs;
    outputs.make_room(num_outputs_);
    const Code::Run run = per_runner_ ? code_.run_alone : code_.run;
    code_.check(
        run(containers_.at(per_runner_ ? runner : 0).get(),
            inputs.data(),
            inputs.size(),
            outputs.data(),
            outputs.size(),
            nullptr,
            nullptr),
        "run");
    give_all(outputs, reserve, sink);
    pool::called();
  }

  const Code& code() const noexcept { return code_; }
  ModelContainer* first() const noexcept { return containers_.front().get(); }

  void set_constants(
      const char* const* names, const DLTensor* tensors, std::size_t count, bool fold) {
    for (const auto& container : containers_) {
      set_constants(container.get(), names, tensors, count, fold);
    }
    note_storages();
  }

 private:
  struct Delete {
    const Code* code;
    void operator()(ModelContainer* container) const noexcept {
      static_cast<void>(code->destroy(container));
    }
  };

  // Hands out the outputs of a run: all of them, or none if it throws.
  void give_all(Handles& outputs, AotiReserve reserve, void* sink) const {
    AotiTensor* const room = reserve(sink, outputs.size());
    if (room == nullptr && outputs.size() != 0) {
      throw std::bad_alloc();
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      describe(outputs[i], room[i]);
      // The caller may close this container as soon as the run is over.
      if (room[i].borrowed != 0 && lies_in_weight(outputs[i])) [[unlikely]] {
        Tensor copy = Tensor::empty(outputs[i].dtype(), outputs[i].sizes_list());
        native::copy(copy, outputs[i]);
        outputs[i] = std::move(copy);
        describe(outputs[i], room[i]);
      }
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      room[i].handle = outputs.give(i);
    }
  }

  bool lies_in_weight(const Tensor& tensor) const noexcept {
    return std::binary_search(storages_.begin(), storages_.end(), tensor.storage().identity());
  }

  void set_constants(
      ModelContainer* container,
      const char* const* names,
      const DLTensor* tensors,
      std::size_t count,
      bool fold) {
    std::vector<Tensor> lent;
    lent.reserve(count);
    ConstantMap map;
    for (std::size_t i = 0; i < count; ++i) {
      lent.push_back(over(tensors[i], nullptr));
      map.emplace(names[i], &lent.back());
    }
    forget_operator_failure();
    if (per_runner_) {
      // Into the buffer that it has: in a model that torch 2.11 compiled, a run without locks looks
      // at the state of the first one only, and folds (run_single_threaded in model_container.h).
      give_constants(container, map, /*inactive=*/false);
      return;
    }
    // By way of the second buffer: what the first one allocated for the weights inside the code is
    // then freed.
    give_constants(container, map, /*inactive=*/true);
    code_.check(code_.swap_constants(container), "swap its weights");
    code_.check(code_.free_inactive(container), "free its weights");
    if (fold) {
      code_.check(code_.fold_constants(container, false, nullptr, nullptr), "fold its weights");
    }
  }

  // The file of weights beside the code, where nobody took it away to set its tensors one by one.
  static std::string blob_of(const std::string& code) {
    return code.substr(0, code.rfind(".so")) + "_weights.blob";
  }

  void give_blob(const std::string& path) {
    std::size_t bytes = 0;
    if (code_.set_blob == nullptr || code_.count_blob_bytes == nullptr) {
      throw std::runtime_error("the code of the model cannot read its file of weights");
    }
    code_.check(code_.count_blob_bytes(first(), &bytes), "say how many weights it has");
    const File file(path);
    const Status status = Memory::map(file.descriptor(), 0, bytes, /*writable=*/true, blob_);
    if (!status.ok()) {
      throw std::runtime_error(status.message);
    }
    for (const auto& container : containers_) {
      code_.check(
          code_.set_blob(container.get(), static_cast<const uint8_t*>(blob_->at(0))),
          "read its file of weights");
    }
  }

  void give_constants(ModelContainer* container, ConstantMap& map, bool inactive) {
    const KeepCopies keep(copies_);
    code_.check(
        code_.set_constants(container, &map, inactive, /*validate=*/false), "take its weights");
  }

  void note_storages() {
    storages_.clear();
    for (const auto& container : containers_) {
      ConstantMap map;
      code_.check(code_.extract_constants(container.get(), &map, false), "list its weights");
      for (const auto& [fqn, tensor] : map) {
        if (tensor != nullptr && tensor->defined()) {
          storages_.push_back(tensor->storage().identity());
        }
      }
    }
    std::sort(storages_.begin(), storages_.end());
  }

  const Code code_;
  const bool per_runner_;
  std::size_t num_inputs_ = 0;
  std::size_t num_outputs_ = 0;
  std::shared_ptr<Memory> blob_;
  std::vector<std::unique_ptr<Tensor>> copies_;  // of the weights, which no container deletes
  std::vector<std::unique_ptr<ModelContainer, Delete>> containers_;
  std::vector<const void*> storages_;  // of the weights, sorted
};

struct Binding {
  std::vector<Tensor> inputs;
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
  std::unique_ptr<Container>(reinterpret_cast<Container*>(container)).reset();
  pool::clear();  // what the model's calls have used
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
    Handles taken;
    for (std::size_t i = 0; i < count; ++i) {
      taken.add(take(inputs[i]));
    }
    of(container).run(runner, taken, reserve, sink);
  });
}

int32_t bind(AotiInput* inputs, std::size_t count, AotiBinding** binding) noexcept {
  return guarded([&] {
    auto made = std::make_unique<Binding>();
    made->inputs.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      made->inputs.push_back(take(inputs[i]));
    }
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
    const std::vector<Tensor>& inputs = reinterpret_cast<const Binding*>(binding)->inputs;
    of(container).check_count(inputs.size());
    Handles copies;
    for (const Tensor& input : inputs) {
      copies.add(Tensor(input));
    }
    of(container).run(runner, copies, reserve, sink);
  });
}

void unbind(AotiBinding* binding) noexcept {
  const std::unique_ptr<Binding> unbound(reinterpret_cast<Binding*>(binding));
}

void release_tensor(void* handle) noexcept {
  const std::unique_ptr<Tensor> released(static_cast<Tensor*>(handle));
}

int32_t visit_call_spec(AotiContainer* container, AotiVisitText visit, void* visitor) noexcept {
  return guarded([&] {
    const Container& self = of(container);
    const char *in = "", *out = "";
    self.code().check(self.code().call_spec(self.first(), &in, &out), "say how it is called");
    visit(visitor, in);
    visit(visitor, out);
  });
}

namespace {

template <class Visit>
void for_each_constant(const Container& self, Visit&& visit) {
  const Code& code = self.code();
  std::size_t count = 0;
  code.check(code.count_constants(self.first(), &count), "count its weights");
  for (std::size_t i = 0; i < count; ++i) {
    const char *name = "", *fqn = "";
    code.check(code.constant_name(self.first(), i, &name), "name its weights");
    code.check(code.constant_fqn(self.first(), i, &fqn), "name its weights");
    visit(i, name, fqn);
  }
}

}  // namespace

int32_t visit_fqns(AotiContainer* container, AotiVisitText visit, void* visitor) noexcept {
  return guarded([&] {
    for_each_constant(
        of(container), [&](std::size_t, const char*, const char* fqn) { visit(visitor, fqn); });
  });
}

int32_t visit_constants(AotiContainer* container, AotiVisitConstant visit, void* visitor) noexcept {
  return guarded([&] {
    const Container& self = of(container);
    for_each_constant(self, [&](std::size_t index, const char* name, const char* fqn) {
      int32_t number = 0;
      self.code().check(
          self.code().constant_dtype(self.first(), index, &number), "describe itself");
      DLDataType type{};  // without lanes, if DLPack does not have it: that does not forbid a run
      static_cast<void>(guarded([&] { type = dl_type_of(static_cast<ScalarType>(number)); }));
      visit(visitor, name, fqn, type);
    });
  });
}

// They are not copied. The memory of those that lie in the code is the container's.
int32_t visit_weights(AotiContainer* container, AotiVisitWeight visit, void* visitor) noexcept {
  return guarded([&] {
    const Container& self = of(container);
    ConstantMap map;
    self.code().check(self.code().extract_constants(self.first(), &map, false), "list its weights");
    for (const auto& [fqn, tensor] : map) {
      if (tensor == nullptr || !tensor->defined()) {
        continue;
      }
      auto copy = std::make_unique<Tensor>(*tensor);
      AotiTensor weight{};
      describe(*copy, weight);
      weight.handle = copy.release();
      visit(visitor, fqn.c_str(), &weight);
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

}  // namespace aoti::native
