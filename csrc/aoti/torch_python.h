#pragma once

// torch's own way from its C++ tensors to its Python ones, where a program has imported torch.
// DLPack does the same but builds two more tensors on the way, which costs as much as all the rest
// of a call. The library is looked up, never linked or loaded, and only used
// if it is of the minor version that this core was built for.

#include <aoti/compat.h>
#include <aoti/errors.h>

#include <ATen/Tensor.h>
#include <ATen/core/TensorBase.h>

#include <dlfcn.h>

namespace aoti {

// Makes a Python tensor, a new reference; wants the GIL. Null with a Python exception set, or
// throws. torch/csrc/autograd/python_variable.h declares it.
using TorchWrap = void* (*)(const at::TensorBase&);

// The function, or null where torch was not imported or has it no more.
inline TorchWrap find_torch_wrap() noexcept {
  void* library = dlopen("libtorch_python.so", RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) {
    return nullptr;
  }
  // Stays loaded: Python never unloads an extension.
  return reinterpret_cast<TorchWrap>(dlsym(library, "_Z16THPVariable_WrapRKN2at10TensorBaseE"));
}

inline Failure wrap_for_torch(TorchWrap wrap, const at::Tensor& tensor, void*& made) noexcept {
  return guarded([&]() -> Failure {
    made = wrap(tensor);
    return {};
  });
}

}  // namespace aoti
