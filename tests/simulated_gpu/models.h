// Models of the simulated GPUs: CPU code, run as a stream's work. A part of gpu.cpp.

using Update = decltype(&AOTInductorModelContainerUpdateUserManagedConstantBuffer);
Update update_on_cpu;  // the one of the code; packages share their runtime's text

AOTIRuntimeError update(
    AOTInductorModelContainerHandle container,
    AOTInductorConstantMapHandle handle,
    bool inactive,
    bool full) {
  auto* given = reinterpret_cast<std::unordered_map<std::string, AtenTensorHandle>*>(handle);
  std::unordered_map<std::string, AtenTensorHandle> map;
  static std::deque<at::Tensor> kept;
  for (const auto& [name, tensor] : *given) {
    kept.push_back(behind(*reinterpret_cast<at::Tensor*>(tensor)));
    map.emplace(name, reinterpret_cast<AtenTensorHandle>(&kept.back()));
  }
  return update_on_cpu(
      container, reinterpret_cast<AOTInductorConstantMapHandle>(&map), inactive, full);
}

class Runner final : public torch::inductor::AOTIModelContainerRunner {
 public:
  Runner(const std::string& so, size_t models, const std::string& device, const std::string& bin,
         bool single)
      : AOTIModelContainerRunner(so, models, "cpu", bin, single), device_(device) {
    TORCH_CHECK(device_.has_index() && device_.index() < kDevices, "invalid device ordinal");
    update_on_cpu = update_user_managed_constant_buffer_func_;
    update_user_managed_constant_buffer_func_ = &update;
  }

 private:
  std::vector<at::Tensor> run_impl(
      std::vector<AtenTensorHandle>& handles, void* stream) override {
    const auto inputs =
        torch::aot_inductor::alloc_tensors_by_stealing_from_handles(handles.data(), handles.size());
    TORCH_CHECK(active == device_.index(), "another device is the current one");
    TORCH_CHECK(stream == nullptr, "streams come as the current one");
    std::vector<at::Tensor> seen, blank, outputs;
    for (const at::Tensor& input : inputs) {
      TORCH_CHECK(input.device() == device_, "an input is on ", input.device());
      seen.push_back(behind(input));
      blank.push_back(at::zeros_like(seen.back()));
    }
    // What the outputs look like does not depend on values.
    for (const at::Tensor& output : run_now(blank)) {
      outputs.push_back(at::empty_strided(
          output.sizes(), output.strides(), output.options().device(device_)));
    }
    std::vector<at::Tensor> targets;
    for (const at::Tensor& output : outputs) {
      targets.push_back(behind(output));
    }
    enqueue(device_.index(), [this, seen, targets] {
      const auto made = run_now(seen);
      for (std::size_t i = 0; i < made.size(); ++i) {
        targets[i].copy_(made[i]);
      }
    });
    return outputs;
  }

  std::vector<at::Tensor> run_now(const std::vector<at::Tensor>& inputs) {
    auto handles = torch::aot_inductor::unsafe_alloc_new_handles_from_tensors(inputs);
    return AOTIModelContainerRunner::run_impl(handles, nullptr);
  }

  const Device device_;
};

std::unique_ptr<torch::inductor::AOTIModelContainerRunner> make_runner(
    const std::string& so, size_t models, const std::string& device, const std::string& bin,
    const bool single) {
  return std::make_unique<Runner>(so, models, device, bin, single);
}

const torch::inductor::RegisterAOTIModelRunner registered("cuda", &make_runner);
