#include <aoti/engine/call.h>
#include <aoti/engine/registry.h>
#include <aoti/engine/weight_set.h>

#include <cstddef>
#include <iterator>

namespace aoti {

namespace {

// What a visitor collects. A visitor is called through C, so it must not throw.
template <class Value>
struct Collected {
  std::vector<Value> values;
  bool out_of_memory = false;

  template <class Make>
  void add(Make&& make) noexcept {
    try {
      values.push_back(make());
    } catch (...) {
      out_of_memory = true;
    }
  }

  Status status(const AotiEngine& engine, int32_t code) const noexcept {
    return out_of_memory ? failed(StatusCode::kNoMemory, "") : engine_status(engine, code);
  }
};

void add_text(void* visitor, const char* text) {
  static_cast<Collected<std::string>*>(visitor)->add([&] { return std::string(text); });
}

using Texts = int32_t (*)(AotiContainer*, AotiVisitText, void*);

Status texts(
    const AotiEngine& engine,
    Texts visit,
    AotiContainer* container,
    std::vector<std::string>& found) noexcept {
  Collected<std::string> collected;
  Status status = collected.status(engine, visit(container, add_text, &collected));
  found = std::move(collected.values);
  return status;
}

}  // namespace

Status WeightSet::describe(
    std::vector<std::string>& call_spec,
    std::vector<std::string>& fqns,
    std::vector<ConstantInfo>& constants) const noexcept {
  Status status = texts(engine, engine.visit_call_spec, container_, call_spec);
  if (status.ok()) {
    status = texts(engine, engine.visit_fqns, container_, fqns);
  }
  if (!status.ok()) {
    return status;
  }
  Collected<ConstantInfo> collected;
  const auto visit = [](void* visitor, const char* name, const char* fqn, DLDataType dtype) {
    static_cast<Collected<ConstantInfo>*>(visitor)->add(
        [&] { return ConstantInfo{name, fqn, dtype_of(dtype)}; });
  };
  status = collected.status(engine, engine.visit_constants(container_, visit, &collected));
  constants = std::move(collected.values);
  return status;
}

Status WeightSet::set(
    const std::vector<std::string>& names, std::vector<Tensor>&& tensors, bool fold) noexcept {
  return catch_all([&]() -> Status {
    // In addition to those of an earlier call, which the container may still use.
    const std::size_t first = given_.size();
    given_.insert(
        given_.end(),
        std::make_move_iterator(tensors.begin()),
        std::make_move_iterator(tensors.end()));
    std::vector<const char*> texts;
    std::vector<DLTensor> views;
    for (std::size_t i = 0; i < names.size(); ++i) {
      texts.push_back(names[i].c_str());
      views.push_back(given_[first + i].view());
    }
    return engine_status(
        engine,
        engine.set_constants(container_, texts.data(), views.data(), texts.size(), fold ? 1 : 0));
  });
}

Status WeightSet::list(
    std::vector<std::string>& fqns, std::vector<Tensor>& tensors) const noexcept {
  struct Weight {
    std::string fqn;
    Tensor tensor;
  };
  struct Visitor {
    const AotiEngine& engine;
    Collected<Weight> weights;
  } visitor{engine, {}};
  const auto visit = [](void* context, const char* fqn, const AotiTensor* tensor) {
    auto& self = *static_cast<Visitor*>(context);
    EngineTensor made(&self.engine);  // gives the handle back, whatever happens
    if (tensor != nullptr) {
      *made.slot() = *tensor;
    }
    self.weights.add([&] {
      Weight weight{fqn, {}};
      if (tensor != nullptr && !made.into(weight.tensor).ok()) {
        throw std::bad_alloc();
      }
      return weight;
    });
  };
  const int32_t code = engine.visit_weights(container_, visit, &visitor);
  Status status = visitor.weights.status(engine, code);
  if (!status.ok()) {
    return status;
  }
  return catch_all([&]() -> Status {
    for (Weight& weight : visitor.weights.values) {
      fqns.push_back(std::move(weight.fqn));
      tensors.push_back(std::move(weight.tensor));
    }
    return {};
  });
}

}  // namespace aoti
