#pragma once

// What this engine was built from, as JSON.

#ifndef AOTI_BUILD_INFO
#error "AOTI_BUILD_INFO is set by setup.py"
#endif

namespace aoti::native {

inline const char* build_info() noexcept {
  return "{\"compiler\": \"" __VERSION__ "\", " AOTI_BUILD_INFO "}";
}

}  // namespace aoti::native
