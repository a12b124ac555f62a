#pragma once

// The engines that this process has loaded.

#include <aoti/core/status.h>
#include <aoti/engine/engine.h>

namespace aoti {

// Makes an engine known. It stays until the process ends. kExecution if its version of the seam is
// not ours.
Status add_engine(const AotiEngine* engine) noexcept;

// Calls `visit` for each engine. Without a lock: engines are only ever added.
void for_each_engine(
    void (*visit)(const AotiEngine& engine, void* visitor), void* visitor) noexcept;

// The first engine that knows devices other than the CPU; null if none is loaded. It never changes:
// what it made, such as a stream's scope, is given back to it.
const AotiEngine* device_engine() noexcept;

// The last failure of an engine on this thread, as a Status.
Status engine_failure(const AotiEngine& engine, int32_t code) noexcept;

// Status of what a function of an engine returned.
inline Status engine_status(const AotiEngine& engine, int32_t code) noexcept {
  if (code == AOTI_OK) [[likely]] {
    return {};
  }
  return engine_failure(engine, code);
}

}  // namespace aoti
