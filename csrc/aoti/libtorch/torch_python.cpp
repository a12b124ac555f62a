#include <aoti/libtorch/errors.h>
#include <aoti/libtorch/tensors.h>
#include <aoti/libtorch/torch_python.h>

#include <ATen/Tensor.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <dlfcn.h>

#include <stdexcept>

namespace aoti::libtorch {

namespace {

// Makes a Python tensor, a new reference; wants the GIL. Null with a Python exception set, or
// throws. torch/csrc/autograd/python_variable.h declares it.
using Wrap = void* (*)(const at::TensorBase&);

// The function, or null if no torch was imported that uses this very libtorch and still has it.
Wrap find_wrap() noexcept {
  void* library = dlopen("libtorch_python.so", RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) {
    return nullptr;
  }
  // The library's own libtorch and ours are one if both find the same function. A torch that uses
  // another one has other classes, and its function would read our tensors wrongly.
  // The library stays loaded in any case: Python never unloads an extension.
  if (dlsym(library, "aoti_torch_abi_version") !=
      reinterpret_cast<void*>(&aoti_torch_abi_version)) {
    return nullptr;
  }
  return reinterpret_cast<Wrap>(dlsym(library, "_Z16THPVariable_WrapRKN2at10TensorBaseE"));
}

// Asked for once torch is imported, and only then looked up, once: dlopen takes the loader's lock.
Wrap wrap() noexcept {
  static const Wrap found = find_wrap();
  return found;
}

}  // namespace

int32_t can_make_torch_tensors() noexcept { return wrap() != nullptr ? 1 : 0; }

void* make_torch_tensor(void* handle) noexcept {
  void* made = nullptr;
  static_cast<void>(guarded([&] {
    const at::Tensor tensor = reclaim(handle);
    const Wrap function = wrap();
    if (function == nullptr) {
      throw std::runtime_error("no torch was imported that uses the loaded libtorch");
    }
    made = function(tensor);
  }));
  return made;
}

}  // namespace aoti::libtorch
