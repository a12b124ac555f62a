#include "fake_engine.h"

#include <aoti/core/dlpack.h>
#include <aoti/core/tensor.h>

#include "arrays.h"
#include "expect.h"
#include "fake_parts.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

namespace fake {

Counts counts;
Settings settings;
Opened opened;
std::vector<std::string> log;
thread_local int32_t threads = 4;

namespace {

using aoti::Tensor;

// -- failures -------------------------------------------------------------------------------------

struct Failure {
  std::atomic<const char*> function{nullptr};
  int32_t code = AOTI_OK;
  std::string message;
  std::string detail;
};
Failure failure;

thread_local std::string last_message;
thread_local std::string last_detail;

}  // namespace

int32_t fail(int32_t code, const std::string& message, const std::string& detail) {
  last_message = message;
  last_detail = detail;
  return code;
}

int32_t failing(const char* function) {
  const char* const chosen = failure.function;
  if (chosen == nullptr || std::strcmp(chosen, function) != 0) {
    return AOTI_OK;
  }
  failure.function = nullptr;
  return fail(failure.code, failure.message, failure.detail);
}

AotiTensor give(Tensor tensor, bool borrowed) {
  ++counts.tensors;
  AotiTensor given{};
  auto* handle = new Tensor(std::move(tensor));
  given.handle = handle;
  given.view = handle->view();
  given.borrowed = borrowed ? 1 : 0;
  return given;
}

namespace {

void last_error(const char** message, const char** detail) {
  *message = last_message.c_str();
  *detail = last_detail.c_str();
}

// -- containers and tensors -----------------------------------------------------------------------

struct Container {
  std::unique_ptr<std::atomic<bool>[]> in_use;
  std::size_t num_runners = 0;
  float own_weight = 0;
  const float* weight = &own_weight;
};

std::mutex writing_opened;

struct Binding {
  std::vector<Tensor> inputs;
};

Container& of(AotiContainer* container) { return *reinterpret_cast<Container*>(container); }

void release_tensor(void* handle) {
  --counts.tensors;
  delete static_cast<Tensor*>(handle);
}

int32_t open(const AotiOpenOptions* options, AotiContainer** container) {
  if (const int32_t code = failing("open"); code != AOTI_OK) {
    return code;
  }
  {
    const std::lock_guard<std::mutex> lock(writing_opened);
    opened = {
        options->path,
        options->model_name,
        options->num_runners,
        options->container_per_runner != 0,
        false,
        0};
  }
  auto made = std::make_unique<Container>();
  made->num_runners = options->num_runners;
  made->in_use = std::make_unique<std::atomic<bool>[]>(options->num_runners);
  ++counts.containers;
  *container = reinterpret_cast<AotiContainer*>(made.release());
  return AOTI_OK;
}

void close(AotiContainer* container) {
  const float weight = *of(container).weight;  // it must still be there
  {
    const std::lock_guard<std::mutex> lock(writing_opened);
    opened.last_closed_weight = weight;
  }
  --counts.containers;
  delete &of(container);
}

// -- runs -----------------------------------------------------------------------------------------

std::vector<Tensor> take(AotiInput* inputs, std::size_t count) {
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < count; ++i) {
    void* const owner = settings.take_owners ? std::exchange(inputs[i].owner, nullptr) : nullptr;
    tensors.push_back(
        Tensor::over(inputs[i].view, owner, owner != nullptr ? inputs[i].release : nullptr));
  }
  return tensors;
}

Tensor computed(const Tensor& input, float weight) {
  Tensor output;
  EXPECT_OK(aoti::clone(input.view(), output));
  if (output.dtype() == kFloat32) {
    auto* const values = static_cast<float*>(output.data());
    std::for_each(values, values + output.numel(), [=](float& value) { value += weight; });
  }
  return output;
}

int32_t run_on(
    Container& container,
    std::size_t runner,
    std::vector<Tensor> inputs,
    AotiReserve reserve,
    void* sink) {
  ++counts.runs;
  if (runner >= container.num_runners || container.in_use[runner].exchange(true)) {
    ++counts.collisions;
  }
  if (settings.during_run) {
    settings.during_run(runner);
  }
  container.in_use[runner] = false;
  if (const int32_t code = failing("run"); code != AOTI_OK) {
    return code;
  }
  if (settings.reversed) {
    std::reverse(inputs.begin(), inputs.end());
  }
  const bool as_usual = settings.reserved == SIZE_MAX;
  AotiTensor* const room = reserve(sink, as_usual ? inputs.size() : settings.reserved);
  if (room == nullptr && !inputs.empty()) {
    return fail(AOTI_OUT_OF_MEMORY, "no room for the outputs");
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool borrowed = settings.lend_inputs && !settings.take_owners;
    room[i] =
        give(settings.lend_inputs ? inputs[i] : computed(inputs[i], *container.weight), borrowed);
    if (const int32_t code = failing("outputs"); code != AOTI_OK) {
      release_tensor(std::exchange(room[i].handle, nullptr));
      return code;
    }
  }
  return AOTI_OK;
}

int32_t run(
    AotiContainer* container,
    std::size_t runner,
    AotiInput* inputs,
    std::size_t count,
    AotiReserve reserve,
    void* sink) {
  return run_on(of(container), runner, take(inputs, count), reserve, sink);
}

int32_t bind(AotiInput* inputs, std::size_t count, AotiBinding** binding) {
  if (const int32_t code = failing("bind"); code != AOTI_OK) {
    return code;
  }
  ++counts.bindings;
  *binding = reinterpret_cast<AotiBinding*>(new Binding{take(inputs, count)});
  return AOTI_OK;
}

int32_t run_bound(
    AotiContainer* container,
    std::size_t runner,
    const AotiBinding* binding,
    AotiReserve reserve,
    void* sink) {
  return run_on(
      of(container), runner, reinterpret_cast<const Binding*>(binding)->inputs, reserve, sink);
}

void unbind(AotiBinding* binding) {
  --counts.bindings;
  delete reinterpret_cast<Binding*>(binding);
}

// -- weights --------------------------------------------------------------------------------------

int32_t visit_call_spec(AotiContainer*, AotiVisitText visit, void* visitor) {
  visit(visitor, "in spec");
  visit(visitor, "out spec");
  return failing("visit_call_spec");
}

int32_t visit_fqns(AotiContainer*, AotiVisitText visit, void* visitor) {
  visit(visitor, "layer.weight");
  visit(visitor, "layer.packed");
  return failing("visit_fqns");
}

int32_t visit_constants(AotiContainer*, AotiVisitConstant visit, void* visitor) {
  visit(visitor, "w", "layer.weight", aoti::dl_type_of(kFloat32));
  visit(visitor, "p", "layer.packed", DLDataType{});
  return failing("visit_constants");
}

int32_t visit_weights(AotiContainer* container, AotiVisitWeight visit, void* visitor) {
  const AotiTensor weight =
      give(Tensor::over(Shape({}).over(of(container).weight, kFloat32), nullptr, nullptr));
  visit(visitor, "layer.weight", &weight);
  visit(visitor, "layer.packed", nullptr);
  return failing("visit_weights");
}

int32_t set_constants(
    AotiContainer* container,
    const char* const* names,
    const DLTensor* tensors,
    std::size_t count,
    int32_t fold) {
  for (std::size_t i = 0; i < count; ++i) {
    if (std::strcmp(names[i], "w") == 0) {
      of(container).weight = static_cast<const float*>(tensors[i].data);
    } else if (std::strcmp(names[i], "p") != 0) {
      return fail(AOTI_FAILED, std::string("no constant is called ") + names[i]);
    }
  }
  opened.folded = fold != 0;
  return failing("set_constants");
}

// -- threads --------------------------------------------------------------------------------------

int32_t get_num_threads() { return threads; }

int32_t set_num_threads(int32_t count) {
  if (const int32_t code = failing("set_num_threads"); code != AOTI_OK) {
    return code;
  }
  threads = count;
  return AOTI_OK;
}

int32_t pause_threads() {
  ++counts.pauses;
  return settings.pause_fails ? 0 : 1;
}

AotiEngine make_engine(const char* name, const AotiDevices* known_devices) {
  return {
      .struct_size = sizeof(AotiEngine),
      .version = AOTI_ENGINE_VERSION,
      .name = name,
      .details = "{}",
      .last_error = last_error,
      .open = open,
      .close = close,
      .run = run,
      .bind = bind,
      .run_bound = run_bound,
      .unbind = unbind,
      .release_tensor = release_tensor,
      .visit_call_spec = visit_call_spec,
      .visit_fqns = visit_fqns,
      .visit_constants = visit_constants,
      .visit_weights = visit_weights,
      .set_constants = set_constants,
      .get_num_threads = get_num_threads,
      .set_num_threads = set_num_threads,
      .pause_threads = pause_threads,
      .has_operator = nullptr,
      .can_make_torch_tensors = nullptr,
      .make_torch_tensor = nullptr,
      .devices = known_devices,
  };
}

}  // namespace

const AotiEngine& engine() {
  static const AotiEngine table = make_engine("fake", nullptr);
  return table;
}

const AotiEngine& engine_with_devices() {
  static const AotiEngine table = make_engine("fake with devices", &devices);
  return table;
}

void fail_next(const char* function, int32_t code, const char* message, const char* detail) {
  failure.code = code;
  failure.message = message;
  failure.detail = detail;
  failure.function = function;
}

Fresh::Fresh() {
  counts.runs = 0;
  counts.pauses = 0;
  settings = {};
  opened = {};
  log.clear();
  failure.function = nullptr;
}

Fresh::~Fresh() {
  EXPECT_EQ(counts.containers, 0);
  EXPECT_EQ(counts.tensors, 0);
  EXPECT_EQ(counts.bindings, 0);
  EXPECT_EQ(counts.collisions, 0);
  EXPECT_EQ(threads, 4);
}

}  // namespace fake
