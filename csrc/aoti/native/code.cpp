#include <aoti/native/code.h>
#include <aoti/native/shim/errors.h>

#include <dlfcn.h>

#include <stdexcept>

namespace aoti::native {

void Code::Unload::operator()(void* library) const noexcept { dlclose(library); }

Code::Code(const std::string& path) : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (!library_) {
    throw std::runtime_error(dlerror());
  }
  find(create, "CreateWithDevice");
  find(destroy, "Delete");
  find(run, "Run");
  find(run_alone, "RunSingleThreaded");
  find(count_inputs, "GetNumInputs");
  find(count_outputs, "GetNumOutputs");
  find(count_constants, "GetNumConstants");
  find(constant_name, "GetConstantName");
  find(constant_fqn, "GetConstantOriginalFQN");
  find(constant_dtype, "GetConstantDtype");
  find(call_spec, "GetCallSpec");
  find(extract_constants, "ExtractConstantsMap");
  find(set_constants, "UpdateUserManagedConstantBuffer");
  find(swap_constants, "SwapConstantBuffer");
  find(free_inactive, "FreeInactiveConstantBuffer");
  find(fold_constants, "RunConstantFolding");
  find_optional(count_blob_bytes, "AOTInductorModelContainerGetConstantsBlobSize");
  find_optional(set_blob, "AOTInductorModelUpdateConstantsFromBlob");
  find_optional(failure_, "AOTInductorGetLastError");
}

template <class Function>
void Code::find(Function& function, const char* name) const {
  const std::string whole = std::string("AOTInductorModelContainer") + name;
  find_optional(function, whole.c_str());
  if (function == nullptr) {
    throw std::runtime_error("the code of the model has no function " + whole);
  }
}

template <class Function>
void Code::find_optional(Function& function, const char* name) const {
  function = reinterpret_cast<Function>(dlsym(library_.get(), name));
}

void Code::fail(const char* what) const {
  std::string why = operator_failure();
  forget_operator_failure();
  if (why.empty() && failure_ != nullptr) {
    const char* text = nullptr;
    if (failure_(&text) == 0 && text != nullptr) {
      why = text;
    }
  }
  throw std::runtime_error(why.empty() ? std::string("the model failed to ") + what : why);
}

}  // namespace aoti::native
