// Two GPUs that are none: a backend for libtorch that has everything of a GPU but the hardware.
//
// Its memory cannot be read by the CPU: addresses that it gives out are not accessible, and the
// same memory is at another address for its kernels. Its streams do nothing before somebody waits
// for them, so whatever is used without waiting in the right order is not there yet. Freed memory
// is overwritten, in the order of its stream. Models are CPU code, run as a stream's work.

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>
#include <torch/csrc/inductor/aoti_torch/tensor_converter.h>
#include <torch/library.h>

#include <sys/mman.h>

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;

constexpr DeviceIndex kDevices = 2;
constexpr std::size_t kRegion = std::size_t(1) << 32;
constexpr std::size_t kAlignment = 256;

// -- streams --------------------------------------------------------------------------------------

struct Queue {
  Device device;
  std::deque<std::function<void()>> work;
  std::size_t done = 0;

  std::size_t end() const { return done + work.size(); }
};

std::recursive_mutex mutex;

void run_until(Queue& queue, std::size_t position) {
  while (queue.done < position && !queue.work.empty()) {
    auto task = std::move(queue.work.front());
    queue.work.pop_front();
    ++queue.done;
    task();
  }
}

std::vector<std::unique_ptr<Queue>>& queues() {  // 0 and 1 are the devices' default ones
  static std::vector<std::unique_ptr<Queue>> all = [] {
    std::vector<std::unique_ptr<Queue>> made;
    for (DeviceIndex i = 0; i < kDevices; ++i) {
      made.push_back(std::make_unique<Queue>(Queue{Device(c10::kCUDA, i), {}, 0}));
    }
    return made;
  }();
  return all;
}

// As CUDA's backend numbers them: 0 the default one, odd its own, even the handle of another's.
Queue& queue_of(const Stream& stream) {
  if (stream.id() == 0) {
    return *queues().at(stream.device_index());
  }
  for (std::size_t i = kDevices; i < queues().size(); ++i) {
    Queue& queue = *queues()[i];
    if (stream.id() == reinterpret_cast<int64_t>(&queue) ||
        stream.id() == static_cast<int64_t>(2 * i + 1)) {
      TORCH_CHECK(queue.device == stream.device(), "a stream of another device");
      return queue;
    }
  }
  TORCH_CHECK(false, "no such stream: ", stream.id());
}

thread_local DeviceIndex active = 0;
thread_local int64_t current_streams[kDevices] = {};

Stream current_stream(DeviceIndex index) {
  return Stream(Stream::UNSAFE, Device(c10::kCUDA, index), current_streams[index]);
}

void enqueue(DeviceIndex index, std::function<void()> task) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  queue_of(current_stream(index)).work.push_back(std::move(task));
}

void finish(const Stream& stream) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  Queue& queue = queue_of(stream);
  run_until(queue, queue.end());
}

void finish_all(DeviceIndex index) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  for (std::size_t i = 0; i < queues().size(); ++i) {
    if (queues()[i]->device.index() == index) {
      run_until(*queues()[i], queues()[i]->end());
    }
  }
}

struct Mark {
  Queue* queue = nullptr;
  std::size_t position = 0;
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override { return Device(c10::kCUDA, active); }
  void setDevice(Device device) const override {
    TORCH_CHECK(device.index() >= 0 && device.index() < kDevices, "invalid device ordinal");
    active = device.index();
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    active = device.index();
  }
  Stream getStream(Device device) const override {
    return current_stream(device.has_index() ? device.index() : active);
  }
  Stream getDefaultStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream exchangeStream(Stream stream) const override {
    static_cast<void>(queue_of(stream));
    const Stream before = current_stream(stream.device_index());
    current_streams[stream.device_index()] = stream.id();
    return before;
  }
  void* getStreamNativeHandle(const Stream stream) const override {
    return stream.id() == 0 ? nullptr : &queue_of(stream);
  }
  DeviceIndex deviceCount() const noexcept override { return kDevices; }
  void record(void** event, const Stream& stream, const DeviceIndex, const c10::EventFlag)
      const override {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    Queue& queue = queue_of(stream);
    delete static_cast<Mark*>(*event);
    *event = new Mark{&queue, queue.end()};
  }
  void block(void* event, const Stream& stream) const override {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    const Mark mark = *static_cast<Mark*>(event);
    queue_of(stream).work.push_back([mark] { run_until(*mark.queue, mark.position); });
  }
  bool queryEvent(void* event) const override {
    const Mark& mark = *static_cast<Mark*>(event);
    return mark.queue->done >= mark.position;
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<Mark*>(event);
  }
  void synchronizeStream(const Stream& stream) const override { finish(stream); }
  void synchronizeDevice(const DeviceIndex index) const override { finish_all(index); }
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override;
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

// -- memory ---------------------------------------------------------------------------------------

char* reserve(int protection) {
  void* base = mmap(
      nullptr, kRegion, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TORCH_CHECK(base != MAP_FAILED, "no address space");
  return static_cast<char*>(base);
}

struct Block {
  std::size_t bytes;
  Stream stream;
  std::vector<Queue*> uses;  // other streams
};

struct Memory final : c10::DeviceAllocator {
  char* const seen = reserve(PROT_NONE);
  char* const real = reserve(PROT_READ | PROT_WRITE);
  std::size_t next = 0;
  std::map<void*, Block> blocks;
  int64_t now[kDevices] = {}, peak[kDevices] = {};

  // What a kernel finds at an address of the device.
  void* at(const void* address) const {
    return address == nullptr ? nullptr : real + (static_cast<const char*>(address) - seen);
  }
  c10::DataPtr allocate(std::size_t bytes) override {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    const Device device(c10::kCUDA, active);
    char* address = seen + next;
    next += (bytes + kAlignment) / kAlignment * kAlignment;
    TORCH_CHECK(next < kRegion, "out of memory");
    blocks.emplace(address, Block{bytes, current_stream(active), {}});
    now[active] += static_cast<int64_t>(bytes);
    peak[active] = std::max(peak[active], now[active]);
    return {address, address, &release, device};
  }
  static void release(void* address);
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void*, const void*, std::size_t) const override { TORCH_CHECK(false, "unused"); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex index) override {
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0].current = now[index];
    stats.allocated_bytes[0].peak = peak[index];
    return stats;
  }
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex index) override { peak[index] = now[index]; }
};

Memory& memory() {
  static Memory* made = new Memory;
  return *made;
}

void Memory::release(void* address) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  Memory& all = memory();
  const auto found = all.blocks.find(address);
  const Block block = found->second;
  std::vector<Mark> uses;
  for (Queue* queue : block.uses) {
    uses.push_back({queue, queue->end()});
  }
  all.blocks.erase(found);
  all.now[block.stream.device_index()] -= static_cast<int64_t>(block.bytes);
  queue_of(block.stream).work.push_back([&all, address, block, uses] {
    for (const Mark& use : uses) {
      if (use.queue->done < use.position) {
        return;  // a real allocator comes back later
      }
    }
    std::memset(all.at(address), 0xDD, block.bytes);
  });
}

void Guard::recordDataPtrOnStream(const c10::DataPtr& data, const Stream& stream) const {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  const auto found = memory().blocks.find(data.get_context());
  if (found != memory().blocks.end()) {
    found->second.uses.push_back(&queue_of(stream));
  }
}

struct Pinned final : c10::Allocator {  // never given back: copies out of it may be under way
  c10::DataPtr allocate(std::size_t bytes) override {
    void* base = std::malloc(bytes + 1);
    return {base, base, [](void*) {}, Device(c10::kCPU)};
  }
  void copy_data(void*, const void*, std::size_t) const override { TORCH_CHECK(false, "unused"); }
};

struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return kDevices; }
  DeviceIndex getCurrentDevice() const override { return active; }
  bool isPinnedPtr(const void*) const override { return false; }
  at::Allocator* getPinnedMemoryAllocator() const override {
    static Pinned pinned;
    return &pinned;
  }
};

// What a kernel sees of a tensor, for as long as the tensor lives.
at::Tensor behind(const at::Tensor& tensor) {
  if (tensor.is_cpu()) {
    return tensor;
  }
  void* data = memory().at(tensor.const_data_ptr());
  return at::from_blob(
      data, tensor.sizes(), tensor.strides(), tensor.options().device(c10::kCPU));
}

// -- kernels --------------------------------------------------------------------------------------

c10::DeviceGuard on(std::optional<Device> device) {
  return c10::DeviceGuard(
      device && device->has_index() ? *device : Device(c10::kCUDA, active));
}

at::Tensor empty_strided(
    at::IntArrayRef sizes,
    at::IntArrayRef strides,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<Device> device,
    std::optional<bool>) {
  const auto guard = on(device);
  const at::Tensor like = at::empty_strided(
      sizes, strides, at::TensorOptions().dtype(dtype.value_or(at::kFloat)).device(c10::kMeta));
  c10::Storage storage(
      c10::Storage::use_byte_size_t(),
      like.storage().nbytes(),
      memory().allocate(like.storage().nbytes()),
      &memory());
  at::Tensor made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), like.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  enqueue(active, [address = memory().at(made.const_data_ptr()), bytes = made.nbytes()] {
    std::memset(address, 0xAA, bytes);
  });
  return made;
}

at::Tensor empty(
    c10::SymIntArrayRef sizes,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout> layout,
    std::optional<Device> device,
    std::optional<bool> pin,
    std::optional<at::MemoryFormat>) {
  const auto known = C10_AS_INTARRAYREF_SLOW(sizes);
  const auto strides = c10::contiguous_strides(known);
  return empty_strided(known, strides, dtype, layout, device, pin);
}

at::Tensor& copy_(at::Tensor& into, const at::Tensor& from, bool non_blocking) {
  const Device device = into.is_cpu() ? from.device() : into.device();
  const at::Tensor source = from.is_cpu() && !non_blocking ? from.clone() : behind(from);
  enqueue(device.index(), [target = behind(into), source] {
    at::AutoDispatchBelowADInplaceOrView below;
    target.copy_(source);
  });
  if (!non_blocking && (into.is_cpu() || from.is_cpu())) {
    finish(current_stream(device.index()));
  }
  return into;
}

at::Tensor& fill_(at::Tensor& self, const at::Scalar& value) {
  enqueue(self.get_device(), [target = behind(self), value] { target.fill_(value); });
  return self;
}

at::Tensor sum(const at::Tensor& self, std::optional<at::ScalarType> dtype) {
  at::Tensor out = at::empty({}, self.options().dtype(dtype.value_or(self.scalar_type())));
  enqueue(self.get_device(), [source = behind(self), target = behind(out)] {
    target.copy_(at::sum(source));
  });
  return out;
}

at::Scalar local_scalar(const at::Tensor& self) {
  finish(current_stream(self.get_device()));
  return behind(self).item();
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", [](c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                                   std::optional<at::ScalarType> dtype,
                                   std::optional<at::Layout> layout, std::optional<Device> device,
                                   std::optional<bool> pin) {
    return empty_strided(
        C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), dtype, layout, device,
        pin);
  });
  library.impl("copy_", &copy_);
  library.impl("fill_.Scalar", &fill_);
  library.impl("sum", &sum);
  library.impl("_local_scalar_dense", &local_scalar);
}

#include "models.h"

}  // namespace

namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks);
}

// -- for the tests --------------------------------------------------------------------------------

extern "C" {

void gpu_start() { c10::SetAllocator(c10::kCUDA, &memory(), 1); }

// A stream as another library would make it; its handle.
void* gpu_stream(int device) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  queues().push_back(std::make_unique<Queue>(
      Queue{Device(c10::kCUDA, static_cast<DeviceIndex>(device)), {}, 0}));
  return queues().back().get();
}

// How much work waits in a stream; null is the default one of the first device.
std::size_t gpu_waiting(const Queue* stream) {
  return (stream == nullptr ? *queues()[0] : *stream).work.size();
}

void gpu_finish(int device) { finish_all(static_cast<DeviceIndex>(device)); }
int gpu_device() { return active; }
long long gpu_allocated(int device) { return memory().now[device]; }
}
