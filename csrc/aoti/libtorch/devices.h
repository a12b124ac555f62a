#pragma once

// Devices other than the CPU, and the order of work on them. Built on the interfaces of ATen and
// c10 that every backend implements, so that one source serves them all.
//
// A thread's work goes to its current stream of each device. That is libtorch's own notion:
// torch.cuda.current_stream() is the same. A stream's number is the one that c10 gave it.

#include <aoti/engine/engine.h>

#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>

#include <optional>

namespace aoti::libtorch {

extern const AotiDevices kDevices;

// Makes a device the current one of its kind while this lives. Models on the CPU do not need that
// and pay for one comparison.
class OnDevice {
 public:
  explicit OnDevice(const c10::Device& device) {
    if (!device.is_cpu()) [[unlikely]] {
      guard_.emplace(device);
    }
  }

 private:
  std::optional<c10::DeviceGuard> guard_;
};

// Waits for all work that was given to a device.
void synchronize(const c10::Device& device);

}  // namespace aoti::libtorch
