#pragma once

// The names under which compiled code finds what this library serves. A package imports them under
// the names of libtorch, and aoti/package/elf_native.py renames the imports of the copy that this
// engine loads, in place, so the new names are as long as the old ones:
//
//   aoti_torch_...                    aotinative_...
//   Sleef_...                         aotis_...
//   native::cpublas of ATen           aoti::native::cblas

#include <aoti/native/shim/tensor.h>

#define AOTI_SERVED extern "C" __attribute__((visibility("default")))

namespace aoti::native {

using Handle = Tensor*;

inline Extents extents(const int64_t* values, int64_t count) noexcept {
  return {values, static_cast<std::size_t>(count)};
}

// Gives compiled code a tensor, which it deletes.
inline void hand_over(Tensor&& tensor, Handle* handle) {
  *handle = std::make_unique<Tensor>(std::move(tensor)).release();
}

}  // namespace aoti::native
