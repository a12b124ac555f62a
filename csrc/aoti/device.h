#pragma once

// Devices other than the CPU, and the order of the work on them. By the interfaces of ATen and c10
// that every backend implements, so that one source serves them all.
//
// The work of a thread goes to its current stream of each device, which is libtorch's own notion:
// torch.cuda.current_stream() is the same. Streams are told apart by c10's number for them.

#include <aoti/errors.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace aoti {

// A guard that models on the CPU, which need none, do not pay for.
template <class Guard>
class Perhaps {
 public:
  Perhaps() = default;
  Perhaps(const Perhaps&) = delete;
  ~Perhaps() {
    if (guard_ != nullptr) [[unlikely]] {
      leave();
    }
  }

  template <class Argument>
  [[gnu::noinline, gnu::cold]] void enter(const Argument& argument) {
    leave();
    guard_ = new Guard(argument);
  }

 private:
  [[gnu::noinline, gnu::cold]] void leave() noexcept {
    delete guard_;
    guard_ = nullptr;
  }

  Guard* guard_ = nullptr;
};

// Makes a device the current one of its kind, as long as this lives.
class OnDevice {
 public:
  explicit OnDevice(const Place& place) {
    if (!place.is_cpu()) [[unlikely]] {
      guard_.enter(static_cast<const c10::Device&>(place));
    }
  }

 private:
  Perhaps<c10::DeviceGuard> guard_;
};

// Waits for everything that was given to a device.
inline void synchronize(const Place& place) {
  if (!place.is_cpu()) {
    c10::impl::VirtualGuardImpl(place.type()).synchronizeDevice(place.index());
  }
}

// The device of a name. Without a number it is the current one of its kind.
inline Failure find_device(const std::string& name, Place& place) noexcept {
  return guarded([&]() -> Failure {
    c10::Device device(name);
    if (!usable(device)) {
      return {Fault::kExecution, "the loaded libtorch has no such devices", {}};
    }
    if (!device.is_cpu()) {
      const c10::impl::VirtualGuardImpl impl(device.type());
      if (!device.has_index()) {
        device = impl.getDevice();
      }
      if (device.index() >= impl.deviceCount()) {
        return {Fault::kExecution, "libtorch does not see it", {}};
      }
    }
    place = device;
    return {};
  });
}

// Does a device do its work? Allocates `count` floats on it, adds them up and waits for the result.
inline Failure add_ones(const std::string& device, int64_t count, double& sum) noexcept {
  return guarded([&]() -> Failure {
    const at::Tensor ones = at::ones({count}, at::TensorOptions().device(c10::Device(device)));
    sum = at::sum(ones).item<double>();
    return {};
  });
}

// -- streams --------------------------------------------------------------------------------------

inline c10::Stream stream_of(const Place& place, int64_t number) {
  return c10::Stream(c10::Stream::UNSAFE, place, number);
}

// The thread's current stream of a device: libtorch's number for it, and the backend's handle.
inline Failure current_stream(const Place& place, int64_t& number, uintptr_t& handle) noexcept {
  return guarded([&]() -> Failure {
    const c10::impl::VirtualGuardImpl impl(place.type());
    const c10::Stream stream = impl.getStream(place);
    number = stream.id();
    handle = reinterpret_cast<uintptr_t>(impl.getStreamNativeHandle(stream));
    return {};
  });
}

// The number of a stream that is known by its handle: 0 and CUDA's 1 are the default stream. That
// of another library's is its handle (c10/cuda/CUDAStream.cpp, getStreamFromExternal), and one of
// libtorch's own may have that as a second number.
inline Failure find_stream(const Place& place, uintptr_t handle, int64_t& number) noexcept {
  return guarded([&]() -> Failure {
    if (handle <= 1) {
      number = 0;
      return {};
    }
    number = static_cast<int64_t>(handle);
    const c10::impl::VirtualGuardImpl impl(place.type());
    if (handle % 2 != 0 || reinterpret_cast<uintptr_t>(
                               impl.getStreamNativeHandle(stream_of(place, number))) != handle) {
      return {Fault::kExecution, "this is no stream of the device", {}};
    }
    return {};
  });
}

// Makes a stream the thread's current one, and its device the current device, until this is left.
class StreamScope {
 public:
  Failure enter(const Place& place, int64_t number) noexcept {
    return guarded([&]() -> Failure {
      guard_.enter(stream_of(place, number));
      return {};
    });
  }

 private:
  Perhaps<c10::StreamGuard> guard_;
};

// Lets a stream wait, on the device, for what another one was given so far.
inline Failure follow(const Place& place, int64_t stream, int64_t ahead) noexcept {
  return guarded([&]() -> Failure {
    if (stream != ahead) {
      c10::Event event(place.type());
      event.record(stream_of(place, ahead));
      event.block(stream_of(place, stream));
    }
    return {};
  });
}

// Keeps a tensor's memory from being used anew before what a stream was given so far is done.
inline Failure used_on(const at::Tensor& tensor, int64_t stream) noexcept {
  return guarded([&]() -> Failure {
    const Place place = place_of(tensor);
    c10::impl::VirtualGuardImpl(place.type())
        .recordDataPtrOnStream(tensor.storage().data_ptr(), stream_of(place, stream));
    return {};
  });
}

// -- memory ---------------------------------------------------------------------------------------

// A copy of a tensor on another device, with the strides that it has. Returns when it is made.
inline Failure move_to(const at::Tensor& tensor, const Place& place, at::Tensor& moved) noexcept {
  return guarded([&]() -> Failure {
    moved = at::empty_strided(
        tensor.sizes(), tensor.strides(), at::TensorOptions().device(place).dtype(tensor.dtype()));
    moved.copy_(tensor);
    return {};
  });
}

// Replaces the inputs that lie on the host, where they are not wanted there, by copies on the
// device: through pinned memory, so that only the first copy is waited for.
// Where nothing is known of an input, it is wanted where the others are, `otherwise`.
inline Failure upload(
    const std::vector<InputSpec>& specs,
    const Place& otherwise,
    std::vector<at::Tensor>& inputs) noexcept {
  return guarded([&]() -> Failure {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      at::Tensor& input = inputs[i];
      const Place& place = i < specs.size() ? specs[i].place : otherwise;
      if (!input.is_cpu() || place.is_cpu()) {
        continue;
      }
      const at::Tensor staged =
          at::empty_strided(input.sizes(), input.strides(), input.options().pinned_memory(true));
      staged.copy_(input);
      input = at::empty_strided(
          input.sizes(), input.strides(), at::TensorOptions().device(place).dtype(input.dtype()));
      input.copy_(staged, /*non_blocking=*/true);
    }
    return {};
  });
}

// Bytes that are allocated on a device now, and the most since `forget_peak`.
inline Failure memory_of(const Place& place, int64_t& now, int64_t& peak) noexcept {
  return guarded([&]() -> Failure {
    const auto bytes =
        c10::getDeviceAllocator(place.type())->getDeviceStats(place.index()).allocated_bytes[0];
    now = bytes.current;
    peak = bytes.peak;
    return {};
  });
}

inline Failure forget_peak(const Place& place) noexcept {
  return guarded([&]() -> Failure {
    c10::getDeviceAllocator(place.type())->resetPeakStats(place.index());
    return {};
  });
}

}  // namespace aoti
