#pragma once

// What this core was built from and for, as JSON. Found by its marker in the file itself, so that
// it can be read before a libtorch is chosen, without loading anything (aoti/engine/libtorch.py).

#ifndef AOTI_BUILD_INFO
#error "AOTI_BUILD_INFO is set by setup.py"
#endif

namespace aoti {

inline const char* build_info() noexcept {
  static const char text[] =
      "AOTI_BUILD_INFO:{\"compiler\": \"" __VERSION__ "\", " AOTI_BUILD_INFO "}";
  return text + sizeof("AOTI_BUILD_INFO:") - 1;
}

}  // namespace aoti
