#include <aoti/libtorch/devices.h>
#include <aoti/libtorch/errors.h>
#include <aoti/libtorch/tensors.h>

#include <ATen/Tensor.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <utility>

namespace aoti::libtorch {

namespace {

// -- which there are ------------------------------------------------------------------------------

int32_t find(const char* name, DLDevice* device) noexcept {
  return guarded([&] {
    c10::Device found(name);
    if (!found.is_cpu()) {
      if (!c10::impl::hasDeviceGuardImpl(found.type())) {
        throw std::invalid_argument("the loaded libtorch has no such devices");
      }
      const c10::impl::VirtualGuardImpl impl(found.type());
      if (!found.has_index()) {
        found = impl.getDevice();
      }
      if (found.index() >= impl.deviceCount()) {
        throw std::invalid_argument("libtorch does not see it");
      }
    }
    *device = dl_device_of(found);
  });
}

int32_t usable(DLDevice device) noexcept { return find_device(device) ? 1 : 0; }

int32_t check(const char* name, int64_t count, double* sum) noexcept {
  return guarded([&] {
    const at::Tensor ones = at::ones({count}, at::TensorOptions().device(c10::Device(name)));
    *sum = at::sum(ones).item<double>();
  });
}

// -- streams --------------------------------------------------------------------------------------

c10::Stream stream_of(const c10::Device& device, int64_t number) {
  return c10::Stream(c10::Stream::UNSAFE, device, number);
}

int32_t current_stream(DLDevice device, int64_t* number, uintptr_t* handle) noexcept {
  return guarded([&] {
    const c10::Device place = device_of(device);
    const c10::impl::VirtualGuardImpl impl(place.type());
    const c10::Stream stream = impl.getStream(place);
    *number = stream.id();
    *handle = reinterpret_cast<uintptr_t>(impl.getStreamNativeHandle(stream));
  });
}

// Handles 0 and 1 are the default stream; 1 is CUDA's name for it. The number of a stream that
// another library made is its handle (c10/cuda/CUDAStream.cpp, getStreamFromExternal). A stream of
// libtorch's own then has that as a second number.
int32_t find_stream(DLDevice device, uintptr_t handle, int64_t* number) noexcept {
  return guarded([&] {
    if (handle <= 1) {
      *number = 0;
      return;
    }
    const c10::Device place = device_of(device);
    const auto found = static_cast<int64_t>(handle);
    const c10::impl::VirtualGuardImpl impl(place.type());
    if (handle % 2 != 0 || reinterpret_cast<uintptr_t>(
                               impl.getStreamNativeHandle(stream_of(place, found))) != handle) {
      throw std::invalid_argument("this is not a stream of the device");
    }
    *number = found;
  });
}

int32_t enter_stream(DLDevice device, int64_t number, void** scope) noexcept {
  return guarded([&] {
    *scope = std::make_unique<c10::StreamGuard>(stream_of(device_of(device), number)).release();
  });
}

void leave_stream(void* scope) noexcept {
  const std::unique_ptr<c10::StreamGuard> left(static_cast<c10::StreamGuard*>(scope));
}

int32_t wait_stream(DLDevice device, int64_t stream, int64_t ahead) noexcept {
  return guarded([&] {
    if (stream != ahead) {
      const c10::Device place = device_of(device);
      c10::Event event(place.type());
      event.record(stream_of(place, ahead));
      event.block(stream_of(place, stream));
    }
  });
}

int32_t synchronize_device(DLDevice device) noexcept {
  return guarded([&] { synchronize(device_of(device)); });
}

// Keeps a tensor's memory from being used again before the work that a stream has so far is done.
int32_t record_stream(void* handle, int64_t stream) noexcept {
  return guarded([&] {
    const auto& tensor = *static_cast<const c10::TensorImpl*>(handle);
    const c10::Device device = tensor.device();
    c10::impl::VirtualGuardImpl(device.type())
        .recordDataPtrOnStream(tensor.storage().data_ptr(), stream_of(device, stream));
  });
}

// -- memory ---------------------------------------------------------------------------------------

at::Tensor new_like(const at::Tensor& tensor, const c10::Device& device) {
  return at::empty_strided(
      tensor.sizes(), tensor.strides(), at::TensorOptions().device(device).dtype(tensor.dtype()));
}

int32_t empty(const DLTensor* like, AotiTensor* made) noexcept {
  return guarded([&] {
    const auto rank = static_cast<std::size_t>(like->ndim);
    *made = give(
        at::empty_strided(
            c10::IntArrayRef(like->shape, rank),
            c10::IntArrayRef(like->strides, rank),
            at::TensorOptions()
                .device(device_of(like->device))
                .dtype(scalar_type_of(like->dtype))));
  });
}

int32_t copy(const DLTensor* to, const DLTensor* from) noexcept {
  return guarded([&] { borrow(*to).copy_(borrow(*from)); });
}

int32_t copy_to(const DLTensor* from, DLDevice device, int32_t wait, AotiTensor* made) noexcept {
  return guarded([&] {
    const c10::Device place = device_of(device);
    const at::Tensor tensor = borrow(*from);
    at::Tensor copied = new_like(tensor, place);
    if (wait != 0 || !tensor.is_cpu() || place.is_cpu()) {
      copied.copy_(tensor);
    } else {
      // Through pinned memory, so that only the copy into that is waited for.
      const at::Tensor staged =
          at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().pinned_memory(true));
      staged.copy_(tensor);
      copied.copy_(staged, /*non_blocking=*/true);
    }
    *made = give(std::move(copied));
  });
}

int32_t memory(DLDevice device, int64_t* now, int64_t* peak) noexcept {
  return guarded([&] {
    const c10::Device place = device_of(device);
    const auto bytes =
        c10::getDeviceAllocator(place.type())->getDeviceStats(place.index()).allocated_bytes[0];
    *now = bytes.current;
    *peak = bytes.peak;
  });
}

int32_t reset_peak(DLDevice device) noexcept {
  return guarded([&] {
    const c10::Device place = device_of(device);
    c10::getDeviceAllocator(place.type())->resetPeakStats(place.index());
  });
}

}  // namespace

void synchronize(const c10::Device& device) {
  if (!device.is_cpu()) {
    c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  }
}

const AotiDevices kDevices = {
    .find = find,
    .usable = usable,
    .check = check,
    .current_stream = current_stream,
    .find_stream = find_stream,
    .enter_stream = enter_stream,
    .leave_stream = leave_stream,
    .wait_stream = wait_stream,
    .synchronize = synchronize_device,
    .record_stream = record_stream,
    .empty = empty,
    .copy = copy,
    .copy_to = copy_to,
    .memory = memory,
    .reset_peak = reset_peak,
};

}  // namespace aoti::libtorch
