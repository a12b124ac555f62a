#include <aoti/libtorch/tensors.h>

#include <ATen/DLConvertor.h>
#include <ATen/Tensor.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/TensorOptions.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <array>
#include <atomic>
#include <bit>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace aoti::libtorch {

namespace {

// PyTorch calls the GPUs of ROCm cuda too; DLPack does not.
#ifdef USE_ROCM
constexpr DLDeviceType kDLGpu = kDLROCM;
#else
constexpr DLDeviceType kDLGpu = kDLCUDA;
#endif

constexpr int64_t kMaxRank = 64;  // the array core has no room for more; numpy has the same limit

// -- devices --------------------------------------------------------------------------------------

// Apart from the CPU's, which every call asks for.
[[gnu::noinline, gnu::cold]] std::optional<c10::Device> find_elsewhere(DLDevice device) noexcept {
  if (device.device_type == kDLCUDAHost || device.device_type == kDLROCMHost) {
    return c10::Device(c10::kCPU);
  }
  if (device.device_type != kDLGpu || device.device_id < 0 ||
      device.device_id > std::numeric_limits<c10::DeviceIndex>::max() ||
      !c10::impl::hasDeviceGuardImpl(c10::kCUDA)) {
    return std::nullopt;
  }
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device.device_id));
}

[[noreturn, gnu::noinline, gnu::cold]] void refuse(DLDevice device) {
  throw std::invalid_argument(
      "libtorch cannot use DLPack's device " + std::to_string(device.device_id) + " of type " +
      std::to_string(device.device_type));
}

[[noreturn, gnu::noinline, gnu::cold]] void refuse(const c10::Device& device) {
  throw std::invalid_argument("aoti has no arrays on " + device.str());
}

[[gnu::noinline, gnu::cold]] c10::DispatchKeySet keys_elsewhere(const c10::Device& device) {
  return c10::DispatchKeySet(c10::computeDispatchKey(std::nullopt, std::nullopt, device));
}

c10::DispatchKeySet keys_of(const c10::Device& device) {
  return device.is_cpu() ? c10::DispatchKeySet(c10::DispatchKey::CPU) : keys_elsewhere(device);
}

// -- tensors --------------------------------------------------------------------------------------

// A tensor over `data` with the sizes and strides of `view`. What at::from_blob makes, without the
// thread state that it sets aside and the deleter that it wraps.
at::Tensor tensor_over(c10::DataPtr&& data, c10::ScalarType dtype, const DLTensor& view) {
  const caffe2::TypeMeta type = c10::scalarTypeToTypeMeta(dtype);
  const auto rank = static_cast<std::size_t>(view.ndim);
  int64_t elements = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    if (view.shape[i] == 0) {
      elements = 0;
      break;
    }
    elements += (view.shape[i] - 1) * view.strides[i];
  }
  const c10::DispatchKeySet keys = keys_of(data.device());
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(
          c10::Storage::use_byte_size_t(),
          static_cast<std::size_t>(elements) * type.itemsize(),
          std::move(data)),
      keys,
      type);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      c10::IntArrayRef(view.shape, rank), c10::IntArrayRef(view.strides, rank));
  return tensor;
}

// -- dtypes ---------------------------------------------------------------------------------------

constexpr std::size_t kCodes = 32;
constexpr std::size_t kWidths = 8;  // 1, 2, 4, ... 128 bits
constexpr auto kScalarTypes = static_cast<std::size_t>(c10::ScalarType::NumOptions);

// ATen's answers, by the dtype that it was asked for; 0 until it was asked. The number of a
// ScalarType plus 1, and a DLDataType, which has a lane.
constinit std::array<std::atomic<uint8_t>, kCodes * kWidths> scalar_types{};
constinit std::array<std::atomic<uint32_t>, kScalarTypes> dl_types{};

static_assert(sizeof(DLDataType) == sizeof(uint32_t));

[[gnu::noinline, gnu::cold]] c10::ScalarType ask_for_scalar_type(DLDataType type) {
  try {
    return at::toScalarType(type);
  } catch (const c10::Error& error) {
    throw std::invalid_argument(
        "libtorch has no dtype for DLPack's {code, bits, lanes} = {" + std::to_string(type.code) +
        ", " + std::to_string(type.bits) + ", " + std::to_string(type.lanes) +
        "}: " + error.what_without_backtrace());
  }
}

[[gnu::noinline, gnu::cold]] DLDataType ask_for_dl_type(c10::ScalarType type) {
  if (static_cast<std::size_t>(type) >= kScalarTypes) {
    throw std::invalid_argument(
        "libtorch has no dtype with the number " + std::to_string(static_cast<int>(type)));
  }
  std::string why;
  try {
    int64_t size = 0, stride = 1;
    DLTensor empty{};
    empty.ndim = 1;
    empty.shape = &size;
    empty.strides = &stride;
    // Not at::empty, which prints warnings for some dtypes.
    const DLDataType found = at::getDLDataType(tensor_over(c10::DataPtr(), type, empty));
    // ATen describes integers of 1 to 7 bits as integers of 8 bits.
    if (at::toScalarType(found) == type) {
      return found;
    }
  } catch (const c10::Error& error) {
    why = std::string(": ") + error.what_without_backtrace();
  }
  throw std::invalid_argument(
      std::string("DLPack has no dtype for libtorch's ") + c10::toString(type) + why);
}

}  // namespace

c10::ScalarType scalar_type_of(DLDataType type) {
  if (type.lanes != 1 || type.code >= kCodes || !std::has_single_bit(type.bits)) [[unlikely]] {
    return ask_for_scalar_type(type);
  }
  std::atomic<uint8_t>& known =
      scalar_types[type.code * kWidths + static_cast<std::size_t>(std::countr_zero(type.bits))];
  const uint8_t found = known.load(std::memory_order_relaxed);
  if (found != 0) [[likely]] {
    return static_cast<c10::ScalarType>(found - 1);
  }
  const c10::ScalarType asked = ask_for_scalar_type(type);
  known.store(static_cast<uint8_t>(static_cast<uint8_t>(asked) + 1), std::memory_order_relaxed);
  return asked;
}

DLDataType dl_type_of(c10::ScalarType type) {
  const auto index = static_cast<std::size_t>(type);
  if (index < kScalarTypes) [[likely]] {
    const uint32_t found = dl_types[index].load(std::memory_order_relaxed);
    if (found != 0) [[likely]] {
      return std::bit_cast<DLDataType>(found);
    }
  }
  const DLDataType asked = ask_for_dl_type(type);
  dl_types[index].store(std::bit_cast<uint32_t>(asked), std::memory_order_relaxed);
  return asked;
}

std::optional<c10::Device> find_device(DLDevice device) noexcept {
  if (device.device_type == kDLCPU) [[likely]] {
    return c10::Device(c10::kCPU);
  }
  return find_elsewhere(device);
}

c10::Device device_of(DLDevice device) {
  const std::optional<c10::Device> found = find_device(device);
  if (!found) [[unlikely]] {
    refuse(device);
  }
  return *found;
}

DLDevice dl_device_of(const c10::Device& device) {
  if (device.is_cpu()) [[likely]] {
    return {kDLCPU, 0};
  }
  if (!device.is_cuda()) {
    refuse(device);
  }
  return {kDLGpu, device.index()};
}

at::Tensor borrow(const DLTensor& view) {
  return tensor_over(
      c10::DataPtr(view.data, device_of(view.device)), scalar_type_of(view.dtype), view);
}

std::vector<at::Tensor> take(AotiInput* inputs, std::size_t count) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    AotiInput& input = inputs[i];
    const c10::Device device = device_of(input.view.device);
    const c10::ScalarType dtype = scalar_type_of(input.view.dtype);
    // From here on the pointer releases the owner, also if the tensor cannot be made.
    c10::DataPtr data =
        input.owner == nullptr
            ? c10::DataPtr(input.view.data, device)
            : c10::DataPtr(
                  input.view.data, std::exchange(input.owner, nullptr), input.release, device);
    tensors.push_back(tensor_over(std::move(data), dtype, input.view));
  }
  return tensors;
}

void describe(const at::Tensor& tensor, AotiTensor& described) {
  if (!tensor.defined()) [[unlikely]] {
    throw std::invalid_argument("the model returned a tensor that is not defined");
  }
  if (tensor.layout() != c10::kStrided) [[unlikely]] {
    throw std::invalid_argument("the model returned a tensor that is not strided");
  }
  if (tensor.dim() > kMaxRank) [[unlikely]] {
    throw std::invalid_argument("the model returned a tensor of more than 64 dimensions");
  }
  DLTensor& view = described.view;
  view.data = const_cast<void*>(tensor.const_data_ptr());  // throws if it has no storage
  view.device = dl_device_of(tensor.device());
  view.ndim = static_cast<int32_t>(tensor.dim());
  view.dtype = dl_type_of(tensor.scalar_type());
  // Nobody writes there; the structure is older than const-correctness.
  view.shape = const_cast<int64_t*>(tensor.sizes().data());
  view.strides = const_cast<int64_t*>(tensor.strides().data());
  // An empty tensor has no memory that somebody could own.
  described.borrowed =
      view.data != nullptr && tensor.storage().data_ptr().get_context() == nullptr ? 1 : 0;
}

AotiTensor give(at::Tensor&& tensor) {
  AotiTensor given{};
  describe(tensor, given);
  given.handle = tensor.unsafeReleaseTensorImpl();
  return given;
}

at::Tensor reclaim(void* handle) noexcept {
  return at::Tensor(
      c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
          static_cast<c10::TensorImpl*>(handle)));
}

void release_tensor(void* handle) noexcept { reclaim(handle).reset(); }

}  // namespace aoti::libtorch
