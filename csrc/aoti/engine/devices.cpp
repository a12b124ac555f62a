#include <aoti/core/dlpack.h>
#include <aoti/engine/devices.h>

#include <utility>

namespace aoti {

namespace {

Status no_devices() noexcept {
  return failed(StatusCode::kExecution, "no engine is loaded that knows devices");
}

// Calls `body` with the engine that knows devices; it returns an AotiCode.
template <class Body>
Status with_devices(Body&& body) noexcept {
  const AotiEngine* const engine = device_engine();
  if (engine == nullptr) {
    return no_devices();
  }
  return engine_status(*engine, body(*engine->devices));
}

// The same for a function that makes a tensor.
template <class Body>
Status made_by_devices(Tensor& tensor, Body&& body) noexcept {
  const AotiEngine* const engine = device_engine();
  if (engine == nullptr) {
    return no_devices();
  }
  EngineTensor made(engine);
  Status status = engine_status(*engine, body(*engine->devices, made.slot()));
  return status.ok() ? made.into(tensor) : status;
}

// A tensor on `device` with these strides that has the elements of another one.
Status copied(const Tensor& tensor, const int64_t* strides, Tensor& copy) noexcept {
  DLTensor like = tensor.view();
  like.strides = const_cast<int64_t*>(strides);
  return made_by_devices(copy, [&](const AotiDevices& devices, AotiTensor* made) {
    const int32_t code = devices.empty(&like, made);
    return code == AOTI_OK ? devices.copy(&made->view, &tensor.view()) : code;
  });
}

}  // namespace

bool usable(Device device) noexcept {
  if (is_cpu(device)) {
    return true;
  }
  const AotiEngine* const engine = device_engine();
  return engine != nullptr && engine->devices->usable(device) != 0;
}

Status find_device(const std::string& name, Device& device) noexcept {
  if (name == "cpu") {
    device = kCpu;
    return {};
  }
  return with_devices(
      [&](const AotiDevices& devices) { return devices.find(name.c_str(), &device); });
}

Status check_device(const std::string& name, int64_t count, double& sum) noexcept {
  return with_devices(
      [&](const AotiDevices& devices) { return devices.check(name.c_str(), count, &sum); });
}

Status current_stream(Device device, int64_t& number, uintptr_t& handle) noexcept {
  return with_devices(
      [&](const AotiDevices& devices) { return devices.current_stream(device, &number, &handle); });
}

Status find_stream(Device device, uintptr_t handle, int64_t& number) noexcept {
  return with_devices(
      [&](const AotiDevices& devices) { return devices.find_stream(device, handle, &number); });
}

Status wait_stream(Device device, int64_t stream, int64_t ahead) noexcept {
  return with_devices(
      [&](const AotiDevices& devices) { return devices.wait_stream(device, stream, ahead); });
}

Status record_stream(const Tensor& tensor, int64_t stream) noexcept {
  const AotiEngine* const engine = device_engine();
  if (engine == nullptr) {
    return no_devices();
  }
  void* const handle = tensor.owner_if(engine->release_tensor);
  if (handle == nullptr) {  // the memory of another library, which sees to that itself
    return {};
  }
  return engine_status(*engine, engine->devices->record_stream(handle, stream));
}

Status device_memory(Device device, int64_t& now, int64_t& peak) noexcept {
  return with_devices(
      [&](const AotiDevices& devices) { return devices.memory(device, &now, &peak); });
}

Status reset_peak(Device device) noexcept {
  return with_devices([&](const AotiDevices& devices) { return devices.reset_peak(device); });
}

Status StreamScope::enter(Device device, int64_t number) noexcept {
  leave();
  return with_devices(
      [&](const AotiDevices& devices) { return devices.enter_stream(device, number, &scope_); });
}

void StreamScope::leave() noexcept {
  if (scope_ != nullptr) {
    device_engine()->devices->leave_stream(std::exchange(scope_, nullptr));
  }
}

Status move_to(const Tensor& tensor, Device device, Tensor& moved) noexcept {
  if (tensor.is_cpu() && is_cpu(device)) {
    return clone_preserving(tensor.view(), moved);
  }
  return made_by_devices(moved, [&](const AotiDevices& devices, AotiTensor* made) {
    return devices.copy_to(&tensor.view(), device, /*wait=*/1, made);
  });
}

Status upload(InputList& inputs, std::size_t index, Device device) noexcept {
  Tensor moved;
  Status status = made_by_devices(moved, [&](const AotiDevices& devices, AotiTensor* made) {
    return devices.copy_to(&inputs.view(index), device, /*wait=*/0, made);
  });
  return status.ok() ? inputs.replace(index, moved) : status;
}

Status clone_on_device(const Tensor& tensor, Tensor& copy) noexcept {
  if (tensor.is_cpu()) {
    return clone(tensor.view(), copy);
  }
  int64_t strides[kMaxRank];
  fill_c_order(tensor.rank(), tensor.sizes(), strides);
  return copied(tensor, strides, copy);
}

Status copy_strided_on_device(
    const Tensor& tensor, const std::vector<int64_t>& strides, Tensor& copy) noexcept {
  return tensor.is_cpu() ? copy_strided(tensor.view(), strides, copy)
                         : copied(tensor, strides.data(), copy);
}

Status clone_preserving_on_device(const Tensor& tensor, Tensor& copy) noexcept {
  if (tensor.is_cpu()) {
    return clone_preserving(tensor.view(), copy);
  }
  return is_dense(tensor.view()) ? copied(tensor, tensor.strides(), copy)
                                 : clone_on_device(tensor, copy);
}

Status allocate_like_on_device(const DLTensor& prototype, Tensor& tensor) noexcept {
  if (is_host(prototype.device.device_type)) {
    return allocate_like(prototype, tensor);
  }
  if (const char* fault = fault_of_sizes(prototype)) {
    return failed(StatusCode::kExecution, fault);
  }
  int64_t strides[kMaxRank];
  fill_c_order(prototype.ndim, prototype.shape, strides);
  DLTensor like = prototype;
  like.strides = strides;
  return made_by_devices(tensor, [&](const AotiDevices& devices, AotiTensor* made) {
    return devices.empty(&like, made);
  });
}

Status copy_between_devices(const DLTensor& to, const DLTensor& from) noexcept {
  if (is_cpu(to.device) && is_cpu(from.device)) {
    copy_elements(to, from);
    return {};
  }
  return with_devices([&](const AotiDevices& devices) { return devices.copy(&to, &from); });
}

}  // namespace aoti
