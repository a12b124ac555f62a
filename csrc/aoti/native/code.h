#pragma once

// The compiled code of a package: a shared object, and the C functions that it exports. Their
// declarations are those of torch/csrc/inductor/aoti_runtime/interface.h.

#include <aoti/native/shim/tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

namespace aoti::native {

struct ModelContainer;  // of the code

// Code and core are linked to one C++ library, so a map can cross between them. libtorch's own
// runner hands it over like this, for every torch version.
using ConstantMap = std::unordered_map<std::string, Tensor*>;

class Code {
 public:
  // Throws std::runtime_error with the dynamic loader's words, or with the function that is
  // missing.
  explicit Code(const std::string& path);

  // Throws std::runtime_error if a function of the code has failed, with the reason that an
  // operator gave, or else the code.
  void check(int32_t result, const char* what) const {
    if (result != 0) [[unlikely]] {
      fail(what);
    }
  }

  using Run = int32_t (*)(
      ModelContainer*, Tensor** inputs, std::size_t, Tensor** outputs, std::size_t, void*, void*);
  using Text = int32_t (*)(ModelContainer*, std::size_t, const char**);
  using Count = int32_t (*)(ModelContainer*, std::size_t*);
  using SetConstants = int32_t (*)(ModelContainer*, ConstantMap*, bool inactive, bool validate);

  int32_t (*create)(ModelContainer**, std::size_t, const char* device, const char* cubins);
  int32_t (*destroy)(ModelContainer*);
  Run run;        // waits for a model of the container
  Run run_alone;  // takes no lock
  Count count_inputs;
  Count count_outputs;
  Count count_constants;
  Text constant_name;
  Text constant_fqn;
  int32_t (*constant_dtype)(ModelContainer*, std::size_t, int32_t*);
  int32_t (*call_spec)(ModelContainer*, const char**, const char**);
  int32_t (*extract_constants)(ModelContainer*, ConstantMap*, bool inactive);
  SetConstants set_constants;  // which their user manages
  int32_t (*swap_constants)(ModelContainer*);
  int32_t (*free_inactive)(ModelContainer*);
  int32_t (*fold_constants)(ModelContainer*, bool inactive, void*, void*);
  Count count_blob_bytes;  // of the file of weights that the code expects; null in older code
  int32_t (*set_blob)(ModelContainer*, const uint8_t*);

 private:
  [[noreturn]] void fail(const char* what) const;
  template <class Function>
  void find(Function& function, const char* name) const;
  template <class Function>
  void find_optional(Function& function, const char* name) const;

  struct Unload {
    void operator()(void* library) const noexcept;
  };

  std::unique_ptr<void, Unload> library_;
  int32_t (*failure_)(const char**);  // null in code that an older torch compiled
};

}  // namespace aoti::native
