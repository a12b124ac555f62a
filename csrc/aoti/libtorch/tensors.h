#pragma once

// DLPack's descriptions of tensors as tensors of ATen, and back. Memory is not copied.

#include <aoti/engine/engine.h>

#include <dlpack/dlpack.h>

#include <ATen/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace aoti::libtorch {

// Both throw if there is no counterpart. Which dtypes correspond is ATen's own decision; an answer
// is kept, so that a call costs a few nanoseconds.
c10::ScalarType scalar_type_of(DLDataType type);
DLDataType dl_type_of(c10::ScalarType type);

// Memory that CUDA or ROCm pinned belongs to the CPU here, which reads it where it is. Nothing if
// this libtorch cannot use the device: the library for the GPU is not loaded, or is another one.
std::optional<c10::Device> find_device(DLDevice device) noexcept;

// The same; throws.
c10::Device device_of(DLDevice device);

// Throws for a device that is neither the CPU nor a GPU of CUDA or ROCm.
DLDevice dl_device_of(const c10::Device& device);

// A tensor over memory that somebody else keeps alive. Its storage has no context.
at::Tensor borrow(const DLTensor& view);

// Tensors over the inputs of a run, which take over the owners. If it throws, the owners that were
// not taken over are still the caller's.
std::vector<at::Tensor> take(AotiInput* inputs, std::size_t count);

// Describes a tensor, without a handle, in a struct that is all zeros. Throws if DLPack cannot
// describe it. Whether it still has to be conjugated or negated is not looked at.
void describe(const at::Tensor& tensor, AotiTensor& described);

// Describes a tensor and hands it out. It is still the caller's if this throws.
AotiTensor give(at::Tensor&& tensor);

// Takes back a tensor that was handed out.
at::Tensor reclaim(void* handle) noexcept;

// AotiEngine::release_tensor. May call the `release` of an input's owner, which may take the GIL.
void release_tensor(void* handle) noexcept;

}  // namespace aoti::libtorch
