#pragma once

// Tensors on any device, and the order of the work on them. The CPU's part is done here, the rest
// by the engine that knows devices (`device_engine`).
//
// The work of a thread goes to its current stream of each device. With libtorch that is also
// torch.cuda.current_stream(). Streams are numbered by the engine.

#include <aoti/core/tensor.h>
#include <aoti/engine/call.h>
#include <aoti/engine/registry.h>

#include <cstdint>
#include <string>

namespace aoti {

// Whether the loaded engines can use a device.
bool usable(Device device) noexcept;

// The device of a name such as "cuda:0"; without a number, the current one of its kind.
Status find_device(const std::string& name, Device& device) noexcept;

// Allocates `count` floats on a device and adds them up there.
Status check_device(const std::string& name, int64_t count, double& sum) noexcept;

// The thread's current stream of a device: its number, and the handle that other libraries know.
Status current_stream(Device device, int64_t& number, uintptr_t& handle) noexcept;

// The number of a stream that is known by its handle.
Status find_stream(Device device, uintptr_t handle, int64_t& number) noexcept;

// Lets a stream wait, on the device, for what another one was given so far.
Status wait_stream(Device device, int64_t stream, int64_t ahead) noexcept;

// Keeps the memory of an engine's tensor from being reused before what a stream was given is done.
Status record_stream(const Tensor& tensor, int64_t stream) noexcept;

Status device_memory(Device device, int64_t& now, int64_t& peak) noexcept;
Status reset_peak(Device device) noexcept;

// Makes a stream the thread's current one, and its device the current device, until this ends.
class StreamScope {
 public:
  StreamScope() = default;
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;
  ~StreamScope() {
    if (scope_ != nullptr) [[unlikely]] {
      leave();
    }
  }

  Status enter(Device device, int64_t number) noexcept;

 private:
  void leave() noexcept;

  void* scope_ = nullptr;
};

// A copy on another device with the same strides; it is made when this returns.
Status move_to(const Tensor& tensor, Device device, Tensor& moved) noexcept;

// Replaces an input on the host by a copy on a device, which the current stream waits for.
Status upload(InputList& inputs, std::size_t index, Device device) noexcept;

// A copy in C order, or with these strides in elements, on the device of the tensor.
Status clone_on_device(const Tensor& tensor, Tensor& copy) noexcept;
Status copy_strided_on_device(
    const Tensor& tensor, const std::vector<int64_t>& strides, Tensor& copy) noexcept;
Status clone_preserving_on_device(const Tensor& tensor, Tensor& copy) noexcept;

// A new tensor in C order with the dtype, sizes and device of a prototype.
Status allocate_like_on_device(const DLTensor& prototype, Tensor& tensor) noexcept;

// Copies the elements of one tensor to another one of the same dtype and sizes.
Status copy_between_devices(const DLTensor& to, const DLTensor& from) noexcept;

}  // namespace aoti
