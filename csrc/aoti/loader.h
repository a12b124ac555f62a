#pragma once

// Runs with the guards that the package loader lacks: permits around them, and no exception past
// this point. Safe to call from any thread, with the GIL or without.

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

// One run: what goes in and what comes out.
struct Run {
  std::vector<at::Tensor> inputs;  // whose references the run takes
  std::vector<at::Tensor> outputs;
  const std::vector<at::Tensor>* targets = nullptr;  // what they are copied into: see copy_outputs
  int64_t wrong = -1;                                // of those, the first that does not fit
  uint64_t number = 0;                               // of the generation that ran
};

inline Failure execute(Permits& permits, int threads, Run& run) noexcept {
  Failure failure = permitted(permits, threads, [&](Generation& generation, std::size_t runner) {
    const OnDevice on(generation.place);
    run.outputs = generation.loader(runner).boxed_run(std::move(run.inputs));
    run.number = generation.number;
    for (at::Tensor& output : run.outputs) {
      // A weight may be gone as soon as the permit is back.
      if (output.has_storage() && output.storage().data_ptr().get_context() == nullptr &&
          generation.lends(output)) {
        output = output.clone(at::MemoryFormat::Contiguous);
      }
    }
  });
  if (failure.fault == Fault::kNone && run.targets != nullptr) {
    failure = copy_outputs(run.outputs, *run.targets, run.wrong);
  }
  return failure;
}

// The same for a thread that gave up the GIL for it. With the GIL in hand again, it says so:
// `Handover::taken`.
inline Failure execute_without_gil(Permits& permits, int threads, Run& run) noexcept {
  const Handover handover;
  return execute(permits, threads, run);
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
