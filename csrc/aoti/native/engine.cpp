// The native engine runs packages through their own C functions. Its tensors, operators and kernels
// are in this library, so it needs no libtorch.

#include <aoti/engine/engine.h>
#include <aoti/native/build_info.h>
#include <aoti/native/containers.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <dlfcn.h>
#include <omp.h>

namespace aoti::native {

namespace {

int32_t get_num_threads() noexcept { return omp_get_max_threads(); }

// OpenMP keeps this number for each thread.
int32_t set_num_threads(int32_t count) noexcept {
  omp_set_num_threads(count);
  return AOTI_OK;
}

using Pause = int (*)(int);

// Null in GCC's OpenMP before version 9.
Pause find_pause() noexcept {
  return reinterpret_cast<Pause>(dlsym(RTLD_DEFAULT, "omp_pause_resource_all"));
}

int32_t pause_threads() noexcept {
  static const Pause pause = find_pause();
  constexpr int kSoft = 1;  // omp_pause_soft: settings are kept
  return pause != nullptr && pause(kSoft) == 0 ? 1 : 0;
}

}  // namespace

}  // namespace aoti::native

// The engine's table, which lives as long as the process.
AOTI_SERVED const AotiEngine* aoti_native_engine() {
  using namespace aoti::native;
  static const AotiEngine table = {
      .struct_size = sizeof(AotiEngine),
      .version = AOTI_ENGINE_VERSION,
      .name = "native",
      .details = build_info(),
      .last_error = last_error,
      .open = open,
      .close = close,
      .run = run,
      .bind = bind,
      .run_bound = run_bound,
      .unbind = unbind,
      .release_tensor = release_tensor,
      .visit_call_spec = visit_call_spec,
      .visit_fqns = visit_fqns,
      .visit_constants = visit_constants,
      .visit_weights = visit_weights,
      .set_constants = set_constants,
      .get_num_threads = get_num_threads,
      .set_num_threads = set_num_threads,
      .pause_threads = pause_threads,
      .has_operator = nullptr,
      .can_make_torch_tensors = nullptr,
      .make_torch_tensor = nullptr,
      .devices = nullptr,
  };
  return &table;
}
