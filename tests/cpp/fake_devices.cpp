#include <aoti/core/dlpack.h>
#include <aoti/core/tensor.h>

#include "fake_engine.h"
#include "fake_parts.h"

#include <cstring>
#include <memory>
#include <utility>

namespace fake {

namespace {

using aoti::Tensor;

constexpr uintptr_t kFirstHandle = 0x1000;

thread_local int64_t streams[2] = {0, 0};

struct Scope {
  DLDevice device;
  int64_t before;
};

void note(const std::string& what) { log.push_back(what); }

std::string text(int64_t one, int64_t other) {
  return std::to_string(one) + " " + std::to_string(other);
}

bool known(DLDevice device) {
  return device.device_type == kDLExtDev && (device.device_id == 0 || device.device_id == 1);
}

int32_t find(const char* name, DLDevice* device) {
  if (std::strcmp(name, "fake") == 0 || std::strcmp(name, "fake:0") == 0) {
    *device = kDevice;
  } else if (std::strcmp(name, "fake:1") == 0) {
    *device = kOtherDevice;
  } else {
    return fail(AOTI_FAILED, std::string("no device ") + name, "the fake engine has two");
  }
  return AOTI_OK;
}

int32_t usable(DLDevice device) { return known(device) ? 1 : 0; }

int32_t check(const char*, int64_t count, double* sum) {
  *sum = static_cast<double>(count);
  return failing("check");
}

int32_t current_stream(DLDevice device, int64_t* number, uintptr_t* handle) {
  *number = streams[device.device_id];
  *handle = kFirstHandle + static_cast<uintptr_t>(*number);
  return AOTI_OK;
}

int32_t find_stream(DLDevice, uintptr_t handle, int64_t* number) {
  if (handle < kFirstHandle) {
    return fail(AOTI_FAILED, "not a stream");
  }
  *number = static_cast<int64_t>(handle - kFirstHandle);
  return AOTI_OK;
}

int32_t enter_stream(DLDevice device, int64_t number, void** scope) {
  if (const int32_t code = failing("enter_stream"); code != AOTI_OK) {
    return code;
  }
  *scope = new Scope{device, std::exchange(streams[device.device_id], number)};
  note("enter " + text(device.device_id, number));
  return AOTI_OK;
}

void leave_stream(void* scope) {
  const std::unique_ptr<Scope> left(static_cast<Scope*>(scope));
  note("leave " + text(left->device.device_id, streams[left->device.device_id]));
  streams[left->device.device_id] = left->before;
}

int32_t wait_stream(DLDevice, int64_t stream, int64_t ahead) {
  note("wait " + text(stream, ahead));
  return AOTI_OK;
}

int32_t synchronize(DLDevice device) {
  note("synchronize " + std::to_string(device.device_id));
  return failing("synchronize");
}

int32_t record_stream(void* handle, int64_t stream) {
  note("record " + text(static_cast<Tensor*>(handle)->numel(), stream));
  return AOTI_OK;
}

// Memory on a device: that of the CPU, by another name.
Tensor new_on(const DLTensor& like, DLDevice device) {
  auto memory = std::make_unique<Tensor>(
      Tensor::allocate(aoti::dtype_of(like.dtype), like.ndim, like.shape, like.strides));
  DLTensor view = memory->view();
  view.device = device;
  return Tensor::over(
      view, memory.release(), [](void* owned) { delete static_cast<Tensor*>(owned); });
}

int32_t empty(const DLTensor* like, AotiTensor* made) {
  if (const int32_t code = failing("empty"); code != AOTI_OK) {
    return code;
  }
  *made = give(new_on(*like, like->device));
  return AOTI_OK;
}

int32_t copy(const DLTensor* to, const DLTensor* from) {
  if (const int32_t code = failing("copy"); code != AOTI_OK) {
    return code;
  }
  aoti::copy_elements(*to, *from);
  return AOTI_OK;
}

int32_t copy_to(const DLTensor* from, DLDevice device, int32_t wait, AotiTensor* made) {
  if (const int32_t code = failing("copy_to"); code != AOTI_OK) {
    return code;
  }
  note("copy_to " + text(device.device_id, wait));
  Tensor copied = new_on(*from, device);
  aoti::copy_elements(copied.view(), *from);
  *made = give(std::move(copied));
  return AOTI_OK;
}

int64_t peak_bytes = 20;

int32_t memory(DLDevice, int64_t* now, int64_t* peak) {
  *now = 10;
  *peak = peak_bytes;
  return AOTI_OK;
}

int32_t reset_peak(DLDevice) {
  peak_bytes = 10;
  return AOTI_OK;
}

}  // namespace

const AotiDevices devices = {
    .find = find,
    .usable = usable,
    .check = check,
    .current_stream = current_stream,
    .find_stream = find_stream,
    .enter_stream = enter_stream,
    .leave_stream = leave_stream,
    .wait_stream = wait_stream,
    .synchronize = synchronize,
    .record_stream = record_stream,
    .empty = empty,
    .copy = copy,
    .copy_to = copy_to,
    .memory = memory,
    .reset_peak = reset_peak,
};

}  // namespace fake
