#pragma once

// torch's own ways between its C++ tensors and its Python ones, where a program has imported torch.
// DLPack does the same but builds more tensors on the way: two for an output, which costs as much
// as all the rest of a call, and one for an input. The library is looked up, never linked or
// loaded, and only used if it is of the minor version that this core was built for.

#include <aoti/compat.h>
#include <aoti/errors.h>
#include <aoti/tensor.h>

#include <ATen/Tensor.h>
#include <ATen/core/TensorBase.h>

#include <dlfcn.h>

#include <utility>

namespace aoti {

// Makes a Python tensor, a new reference; wants the GIL. Null with a Python exception set, or
// throws. torch/csrc/autograd/python_variable.h declares it.
using TorchWrap = void* (*)(const at::TensorBase&);

// pybind11's caster of torch/csrc/utils/pybind.h: fills the tensor that it begins with. False where
// the object is none.
using TorchUnwrap = bool (*)(at::Tensor*, void* object, bool convert);

// Null where torch was not imported or has them no more.
struct TorchPython {
  TorchWrap wrap = nullptr;
  TorchUnwrap unwrap = nullptr;
};

inline TorchPython find_torch_python() noexcept {
  void* library = dlopen("libtorch_python.so", RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) {
    return {};
  }
  // Stays loaded: Python never unloads an extension.
  return {
      reinterpret_cast<TorchWrap>(dlsym(library, "_Z16THPVariable_WrapRKN2at10TensorBaseE")),
      reinterpret_cast<TorchUnwrap>(
          dlsym(library, "_ZN8pybind116detail11type_casterIN2at6TensorEvE4loadENS_6handleEb"))};
}

inline Failure wrap_for_torch(TorchWrap wrap, const at::Tensor& tensor, void*& made) noexcept {
  return guarded([&]() -> Failure {
    made = wrap(tensor);
    return {};
  });
}

// Describes a Python tensor on the CPU that is as plain as one over its memory would be: nothing is
// lazy about it, autograd does not watch it, and it was not made in inference mode. False for any
// other object.
inline bool describe_torch(TorchUnwrap unwrap, void* object, Borrowed& array) noexcept {
  try {
    static const c10::DispatchKeySet plain =
        c10::DispatchKeySet(c10::DispatchKey::CPU) |
        c10::getAutogradRelatedKeySetFromBackend(c10::BackendComponent::CPUBit);
    at::Tensor tensor;
    if (!unwrap(&tensor, object, /*convert=*/false) || !tensor.defined() ||
        tensor.key_set() != plain || tensor.requires_grad() || tensor._fw_grad(0).defined() ||
        tensor.dim() > kMaxRank) {
      return false;
    }
    tensor.mutable_data_ptr();  // makes the copy that torch may have put off until it is written to
    describe(tensor, /*writable=*/true, array);
    array.tensor = std::move(tensor);
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace aoti
