#pragma once

// What this engine was built from and for, as JSON. Python finds it in the file by its marker, so
// that it can be read before a libtorch is chosen and without loading anything
// (aoti/engine/libtorch.py).

#ifndef AOTI_BUILD_INFO
#error "AOTI_BUILD_INFO is set by setup.py"
#endif

namespace aoti::libtorch {

inline const char* build_info() noexcept {
  static const char text[] =
      "AOTI_BUILD_INFO:{\"compiler\": \"" __VERSION__ "\", " AOTI_BUILD_INFO "}";
  return text + sizeof("AOTI_BUILD_INFO:") - 1;
}

}  // namespace aoti::libtorch
