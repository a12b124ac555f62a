#pragma once

// Devices, as DLPack numbers them.

#include <dlpack/dlpack.h>

namespace aoti {

using Device = DLDevice;

constexpr Device kCpu{kDLCPU, 0};

constexpr bool is_cpu(Device device) noexcept { return device.device_type == kDLCPU; }

constexpr bool same(Device one, Device other) noexcept {
  return one.device_type == other.device_type && one.device_id == other.device_id;
}

// Whether the CPU reads the memory where it is: its own, and what CUDA or ROCm pinned.
constexpr bool is_host(DLDeviceType type) noexcept {
  return type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost;
}

}  // namespace aoti
