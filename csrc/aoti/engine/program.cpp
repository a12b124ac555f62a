#include <aoti/core/values.h>
#include <aoti/engine/devices.h>
#include <aoti/engine/fork.h>
#include <aoti/engine/gil.h>
#include <aoti/engine/openmp.h>
#include <aoti/engine/program.h>
#include <aoti/engine/registry.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>

namespace aoti {

namespace {

bool fits(const Tensor& target, const DLTensor& output) noexcept {
  return target.dtype() == dtype_of(output.dtype) && target.rank() == output.ndim &&
         std::equal(output.shape, output.shape + output.ndim, target.sizes());
}

// Copies the outputs that lie in an input which is also a target: they are needed after another
// output, or a part of their own, was written there.
Status set_apart(const Run& run, std::vector<Tensor>& copies) noexcept {
  return catch_all([&]() -> Status {
    const std::vector<Tensor>& targets = *run.targets;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (!targets[i].defined() || run.outputs[i].borrowed == 0) {
        continue;
      }
      const Tensor output = Tensor::over(run.outputs[i].view, nullptr, nullptr);
      const auto endangers = [&](const Tensor& target) {
        const bool memmoved =
            &target == &targets[i] && is_contiguous(target.view()) && is_contiguous(output.view());
        return target.defined() && !memmoved && bounds_overlap(target, output);
      };
      if (std::any_of(targets.begin(), targets.end(), endangers)) {
        copies.resize(targets.size());
        if (Status status = clone_on_device(output, copies[i]); !status.ok()) {
          return status;
        }
      }
    }
    return {};
  });
}

// Writes outputs into the tensors that the caller gave for them.
Status copy_outputs(Run& run) noexcept {
  const std::vector<Tensor>& targets = *run.targets;
  run.wrong = -1;
  if (targets.size() != run.outputs.size()) {
    run.wrong = 0;
    return {};
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i].defined() && !fits(targets[i], run.outputs[i].view)) {
      run.wrong = static_cast<int64_t>(i);
      return {};
    }
  }
  std::vector<Tensor> copies;
  if (Status status = set_apart(run, copies); !status.ok()) {
    return status;
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (!targets[i].defined()) {
      continue;
    }
    const bool copied = !copies.empty() && copies[i].defined();
    const DLTensor& from = copied ? copies[i].view() : run.outputs[i].view;
    const DLTensor& to = targets[i].view();
    if (is_cpu(from.device) && is_cpu(to.device) && is_contiguous(from) && is_contiguous(to)) {
      // An output may be the input that it goes into.
      const int64_t bytes = count_elements(from) * itemsize_of(from.dtype);
      if (bytes != 0) {
        std::memmove(to.data, from.data, static_cast<std::size_t>(bytes));
      }
    } else if (Status status = copy_between_devices(to, from); !status.ok()) {
      return status;
    }
  }
  return {};
}

}  // namespace

Status Program::open(
    uint64_t number, bool container_per_runner, std::shared_ptr<WeightSet>& weights) noexcept {
  return catch_all([&]() -> Status {
    handle_forks();
    AotiOpenOptions options{};
    options.path = path_.c_str();
    options.model_name = model_name_.c_str();
    options.num_runners = num_runners_;
    options.container_per_runner = container_per_runner ? 1 : 0;
    options.device = device;
    AotiContainer* container = nullptr;
    {
      const std::lock_guard<std::mutex> lock(construction_mutex());
      if (Status status = engine_status(engine, engine.open(&options, &container)); !status.ok()) {
        return status;
      }
    }
    std::unique_ptr<AotiContainer, void (*)(AotiContainer*)> held(container, engine.close);
    weights = std::make_shared<WeightSet>(engine, container, number);
    held.release();
    return {};
  });
}

template <class Body>
Status Program::on_a_runner(Body&& body) noexcept {
  ThreadTeam& team = ThreadTeam::mine();
  if (team.lost) {
    return {StatusCode::kThreadsLost, {}, {}};
  }
  const RunnerLease lease(pool_);
  switch (lease.grant()) {
    case Grant::kGranted:
      break;
    case Grant::kBusy:
      return {StatusCode::kBusy, {}, {}};
    case Grant::kClosed:
      return {StatusCode::kClosed, {}, {}};
    case Grant::kLost:
      return {StatusCode::kRunLost, {}, {}};
    case Grant::kUnset:
      return {StatusCode::kUnset, {}, {}};
  }
  team.started = true;
  const ThreadCount count(engine, threads_);
  if (count.code() != AOTI_OK) {
    return engine_failure(engine, count.code());
  }
  return engine_status(engine, body(lease.weights(), lease.runner()));
}

Status Program::run(Run& run) noexcept {
  Status status = on_a_runner([&](WeightSet& weights, std::size_t runner) -> int32_t {
    run.number = weights.number;
    run.outputs.start(&engine);
    return run.binding != nullptr
               ? engine.run_bound(
                     weights.container(), runner, run.binding, OutputList::reserve, &run.outputs)
               : engine.run(
                     weights.container(),
                     runner,
                     run.inputs.data(),
                     run.inputs.size(),
                     OutputList::reserve,
                     &run.outputs);
  });
  return status.ok() && run.targets != nullptr ? copy_outputs(run) : status;
}

Status Program::run_without_gil(Run& run) noexcept {
  const GilHandover handover;
  return this->run(run);
}

Status Program::time_runs(
    const AotiBinding* binding, std::size_t repeats, double& seconds) noexcept {
  return on_a_runner([&](WeightSet& weights, std::size_t runner) -> int32_t {
    OutputList outputs;
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < repeats; ++i) {
      outputs.start(&engine);
      const int32_t code =
          engine.run_bound(weights.container(), runner, binding, OutputList::reserve, &outputs);
      if (code != AOTI_OK) {
        return code;
      }
    }
    if (!is_cpu(device)) {
      const int32_t code = engine.devices->synchronize(device);
      if (code != AOTI_OK) {
        return code;
      }
    }
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return AOTI_OK;
  });
}

Status Program::bind(InputList& inputs, AotiBinding*& binding) noexcept {
  return engine_status(engine, engine.bind(inputs.data(), inputs.size(), &binding));
}

int64_t find_out_of_range(
    const std::vector<InputSpec>& specs, const InputList& inputs, const int64_t* symbols) noexcept {
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].bounded && is_cpu(inputs.view(i).device) &&
        !all_within(
            inputs.view(i), evaluate(specs[i].low, symbols), evaluate(specs[i].high, symbols))) {
      return static_cast<int64_t>(i);
    }
  }
  return -1;
}

}  // namespace aoti
