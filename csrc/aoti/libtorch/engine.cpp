#include <aoti/libtorch/build_info.h>
#include <aoti/libtorch/containers.h>
#include <aoti/libtorch/devices.h>
#include <aoti/libtorch/engine.h>
#include <aoti/libtorch/errors.h>
#include <aoti/libtorch/operators.h>
#include <aoti/libtorch/tensors.h>
#include <aoti/libtorch/threads.h>
#include <aoti/libtorch/torch_python.h>

namespace aoti::libtorch {

const AotiEngine* engine() noexcept {
  static const AotiEngine table = {
      .struct_size = sizeof(AotiEngine),
      .version = AOTI_ENGINE_VERSION,
      .name = "libtorch",
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
      .has_operator = has_operator,
      .can_make_torch_tensors = can_make_torch_tensors,
      .make_torch_tensor = make_torch_tensor,
      .devices = &kDevices,
  };
  return &table;
}

}  // namespace aoti::libtorch
