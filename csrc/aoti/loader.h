#pragma once

// Runs with the guards that the package loader lacks: permits around them, and no exception past
// this point. Safe to call from any thread without the GIL.

#include <aoti/device.h>
#include <aoti/errors.h>
#include <aoti/generation.h>
#include <aoti/handover.h>
#include <aoti/openmp.h>
#include <aoti/permits.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

namespace aoti {

// Calls `body` with a permit in hand, on as many OpenMP threads as are asked for (0: as OpenMP has
// it). It gets the generation that is served now, which stays as long as the permit is out, and the
// number of its runner. kBusy if none came back for a while: the caller looks for signals and comes
// again.
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
      case Grant::kUnset:
        return {Fault::kUnset, {}, {}};
    }
    team.started = true;
    const ThreadCount count(threads);
    body(static_cast<Generation&>(permit.served()), permit.runner());
    return {};
  });
}

// Runs once, taking the inputs' references. `outputs` is replaced; `number` is that of the
// generation that ran.
inline Failure run_once(
    Permits& permits,
    int threads,
    std::vector<at::Tensor>& inputs,
    std::vector<at::Tensor>& outputs,
    uint64_t& number) noexcept {
  return permitted(permits, threads, [&](Generation& generation, std::size_t runner) {
    const OnDevice on(generation.place);
    outputs = generation.loader(runner).boxed_run(std::move(inputs));
    number = generation.number;
    for (at::Tensor& output : outputs) {
      // A weight may be gone as soon as the permit is back.
      if (output.has_storage() && output.storage().data_ptr().get_context() == nullptr &&
          generation.lends(output)) {
        output = output.clone(at::MemoryFormat::Contiguous);
      }
    }
  });
}

// The same for a thread that gave up the GIL for it. With the GIL in hand again, it says so:
// `Handover::taken`.
inline Failure run(
    Permits& permits,
    int threads,
    std::vector<at::Tensor>& inputs,
    std::vector<at::Tensor>& outputs,
    uint64_t& number) noexcept {
  const Handover handover;
  return run_once(permits, threads, inputs, outputs, number);
}

// The same, and copies the outputs into `targets`: see copy_outputs.
inline Failure run_into(
    Permits& permits,
    int threads,
    std::vector<at::Tensor>& inputs,
    const std::vector<at::Tensor>& targets,
    std::vector<at::Tensor>& outputs,
    int64_t& wrong) noexcept {
  const Handover handover;
  uint64_t number = 0;
  Failure failure = run_once(permits, threads, inputs, outputs, number);
  if (failure.fault == Fault::kNone) {
    failure = copy_outputs(outputs, targets, wrong);
  }
  return failure;
}

// The same run `repeats` times on the same inputs: what a call costs without Python.
inline Failure time_runs(
    Permits& permits,
    int threads,
    const std::vector<at::Tensor>& inputs,
    std::size_t repeats,
    double& seconds) noexcept {
  return permitted(permits, threads, [&](Generation& generation, std::size_t runner) {
    const auto start = std::chrono::steady_clock::now();
    const OnDevice on(generation.place);
    for (std::size_t i = 0; i < repeats; ++i) {
      generation.loader(runner).run(inputs);
    }
    synchronize(generation.place);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}

}  // namespace aoti
