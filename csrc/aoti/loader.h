#pragma once

// The package loader with the guards it lacks: serialised construction, permits around runs, and
// no exception past this point. Safe to call from any thread without the GIL.

#include <aoti/errors.h>
#include <aoti/fork.h>
#include <aoti/openmp.h>
#include <aoti/permits.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace aoti {

using Loader = torch::inductor::AOTIModelPackageLoader;

inline Failure open(
    std::unique_ptr<Loader>& loader,
    const std::string& path,
    const std::string& model_name,
    bool single_threaded,
    std::size_t num_runners,
    c10::DeviceIndex device_index,
    std::vector<std::string>& call_spec,
    std::vector<std::string>& constant_fqns) noexcept {
  return guarded([&]() -> Failure {
    handle_forks();
    const std::lock_guard<std::mutex> lock(construction_mutex());
    loader = std::make_unique<Loader>(path, model_name, single_threaded, num_runners, device_index);
    call_spec = loader->get_call_spec();
    constant_fqns = loader->get_constant_fqns();
    return {};
  });
}

// Calls `body` with a permit in hand, on as many OpenMP threads as are asked for (0: as OpenMP has
// it). The loader is looked at only there: without a permit, close() may be freeing it. kBusy if
// none came back for a while: the caller looks for signals and comes again.
template <class Body>
Failure permitted(Permits& permits, int threads, Body&& body) noexcept {
  return guarded([&]() -> Failure {
    Team& team = Team::mine();
    if (team.lost) {
      return {Fault::kThreadsLost, {}, {}};
    }
    const Permit permit(permits);
    switch (permit.grant()) {
      case Grant::kGranted:
        break;
      case Grant::kBusy:
        return {Fault::kBusy, {}, {}};
      case Grant::kClosed:
        return {Fault::kClosed, {}, {}};
      case Grant::kLost:
        return {Fault::kRunLost, {}, {}};
    }
    team.started = true;
    const ThreadCount count(threads);
    body();
    return {};
  });
}

// Runs once, taking the inputs' references. `outputs` is replaced.
inline Failure run(
    const std::unique_ptr<Loader>& loader,
    Permits& permits,
    int threads,
    std::vector<at::Tensor>& inputs,
    std::vector<at::Tensor>& outputs) noexcept {
  return permitted(permits, threads, [&] { outputs = loader->boxed_run(std::move(inputs)); });
}

// Runs once, and copies the outputs into `targets`: see copy_outputs.
inline Failure run_into(
    const std::unique_ptr<Loader>& loader,
    Permits& permits,
    int threads,
    std::vector<at::Tensor>& inputs,
    const std::vector<at::Tensor>& targets,
    std::vector<at::Tensor>& outputs,
    int64_t& wrong) noexcept {
  Failure failure = run(loader, permits, threads, inputs, outputs);
  if (failure.fault == Fault::kNone) {
    failure = copy_outputs(outputs, targets, wrong);
  }
  return failure;
}

// The same run `repeats` times on the same inputs: what a call costs without Python.
inline Failure time_runs(
    const std::unique_ptr<Loader>& loader,
    Permits& permits,
    int threads,
    const std::vector<at::Tensor>& inputs,
    std::size_t repeats,
    double& seconds) noexcept {
  return permitted(permits, threads, [&] {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < repeats; ++i) {
      loader->run(inputs);
    }
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}

// Waits until nothing runs, then destroys the loader. Harmless the second time, from any thread.
inline void close(std::unique_ptr<Loader>& loader, Permits& permits) noexcept {
  static_cast<void>(guarded([&]() -> Failure {
    if (permits.close()) {
      loader.reset();
    }
    return {};
  }));
}

// Gives up a loader that this process inherited by a fork while it ran, with locks in whatever
// state they were.
inline void abandon(std::unique_ptr<Loader>& loader) noexcept {
  static_cast<void>(loader.release());
}

}  // namespace aoti
