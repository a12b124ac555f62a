#include <aoti/libtorch/errors.h>
#include <aoti/libtorch/operators.h>

#include <ATen/core/dispatch/Dispatcher.h>

namespace aoti::libtorch {

int32_t has_operator(const char* name, const char* overload) noexcept {
  bool found = false;
  const int32_t code = guarded(
      [&] { found = c10::Dispatcher::singleton().findSchema({name, overload}).has_value(); });
  return code != AOTI_OK ? -1 : found ? 1 : 0;
}

}  // namespace aoti::libtorch
