#pragma once

// A loaded model: the engine that runs it, its runners and the weights that it serves. Every method
// may be called from any thread, with the GIL or without, and none throws.

#include <aoti/core/check.h>
#include <aoti/core/status.h>
#include <aoti/engine/call.h>
#include <aoti/engine/engine.h>
#include <aoti/engine/runner_pool.h>
#include <aoti/engine/weight_set.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace aoti {

// One run: what goes in and what comes out.
struct Run {
  InputList inputs;                      // unless there is a binding
  const AotiBinding* binding = nullptr;  // what `Program::bind` made
  OutputList outputs;
  const std::vector<Tensor>* targets = nullptr;  // outputs are copied there; undefined: left out
  int64_t wrong = -1;                            // the first target that does not fit its output
  uint64_t number = 0;                           // of the weights that it ran on
};

class Program {
 public:
  Program(
      const AotiEngine& engine,
      std::string path,
      std::string model_name,
      std::size_t num_runners,
      Device device,
      int32_t threads)
      : engine(engine),
        device(device),
        path_(std::move(path)),
        model_name_(std::move(model_name)),
        num_runners_(num_runners),
        threads_(threads),
        pool_(num_runners) {}

  // Makes a container with the weights that are stored in the code. With `container_per_runner`
  // two threads never meet in the locks of a container, where they lose as much time as a small
  // model runs; but each has its own copy of those weights and of what is folded.
  Status open(
      uint64_t number, bool container_per_runner, std::shared_ptr<WeightSet>& weights) noexcept;

  bool serve(std::shared_ptr<WeightSet> weights) noexcept {
    return pool_.serve(std::move(weights));
  }

  // Runs on as many OpenMP threads as were asked for. kBusy if no runner came back for a while: the
  // caller looks for signals and comes again. Nothing is written to the targets unless all fit.
  Status run(Run& run) noexcept;

  // The same for a thread that gave up the GIL for it. With the GIL in hand again, the thread says
  // so: `GilHandover::taken`.
  Status run_without_gil(Run& run) noexcept;

  // The same run `repeats` times on one runner: what a call costs without Python.
  Status time_runs(const AotiBinding* binding, std::size_t repeats, double& seconds) noexcept;

  // Prepares inputs for many runs. Their memory must stay alive as long as the binding.
  Status bind(InputList& inputs, AotiBinding*& binding) noexcept;
  void unbind(AotiBinding* binding) noexcept { engine.unbind(binding); }

  void close() noexcept { pool_.close(); }

  const AotiEngine& engine;
  const Device device;

 private:
  template <class Body>
  Status on_a_runner(Body&& body) noexcept;

  const std::string path_;
  const std::string model_name_;
  const std::size_t num_runners_;
  const int32_t threads_;
  RunnerPool pool_;
};

// The first input with a value out of its range; -1 if there is none. `symbols` is what `check`
// bound. Inputs on a device are not looked at: that would wait for the device.
int64_t find_out_of_range(
    const std::vector<InputSpec>& specs, const InputList& inputs, const int64_t* symbols) noexcept;

}  // namespace aoti
