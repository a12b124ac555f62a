#pragma once

// The package loader with the guards it lacks: serialised construction, permits around runs, and
// no exception past this point. Safe to call from any thread without the GIL.

#include <aoti/errors.h>
#include <aoti/permits.h>

#include <ATen/Tensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace aoti {

using Loader = torch::inductor::AOTIModelPackageLoader;

// Construction parses metadata into a function-local static of libtorch: eight threads doing it at
// once crash (pytorch PR 194128). One lock for the whole process.
inline std::mutex& construction_mutex() {
  static std::mutex mutex;
  return mutex;
}

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
    const std::lock_guard<std::mutex> lock(construction_mutex());
    loader = std::make_unique<Loader>(path, model_name, single_threaded, num_runners, device_index);
    call_spec = loader->get_call_spec();
    constant_fqns = loader->get_constant_fqns();
    return {};
  });
}

// Runs once, taking the inputs' references. `outputs` is replaced. The loader is looked at only
// with a permit in hand: without one, close() may be freeing it.
inline Failure run(
    const std::unique_ptr<Loader>& loader,
    Permits& permits,
    std::vector<at::Tensor>& inputs,
    std::vector<at::Tensor>& outputs) noexcept {
  return guarded([&]() -> Failure {
    const Permit permit(permits);
    if (!permit.granted()) {
      return {Fault::kClosed, {}, {}};
    }
    outputs = loader->boxed_run(std::move(inputs));
    return {};
  });
}

// The same run `repeats` times on the same inputs: what a call costs without Python.
inline Failure time_runs(
    const std::unique_ptr<Loader>& loader,
    Permits& permits,
    const std::vector<at::Tensor>& inputs,
    std::size_t repeats,
    double& seconds) noexcept {
  return guarded([&]() -> Failure {
    const Permit permit(permits);
    if (!permit.granted()) {
      return {Fault::kClosed, {}, {}};
    }
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < repeats; ++i) {
      loader->run(inputs);
    }
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return {};
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

// Gives up a loader that this process inherited by a fork, with locks in whatever state they were.
inline void abandon(std::unique_ptr<Loader>& loader) noexcept {
  static_cast<void>(loader.release());
}

}  // namespace aoti
