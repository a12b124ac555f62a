#include <aoti/engine/registry.h>

#include <atomic>
#include <cstddef>
#include <mutex>

namespace aoti {

namespace {

constexpr std::size_t kMostEngines = 8;

std::atomic<const AotiEngine*> engines[kMostEngines];

std::mutex& adding() noexcept {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

Status add_engine(const AotiEngine* engine) noexcept {
  if (engine->version != AOTI_ENGINE_VERSION || engine->struct_size < sizeof(AotiEngine)) {
    return failed(
        StatusCode::kExecution,
        "the engine was built for another version of aoti: install aoti afresh");
  }
  const std::lock_guard<std::mutex> lock(adding());
  for (auto& slot : engines) {
    const AotiEngine* const known = slot.load(std::memory_order_relaxed);
    if (known == engine) {
      return {};
    }
    if (known == nullptr) {
      slot.store(engine, std::memory_order_release);
      return {};
    }
  }
  return failed(StatusCode::kExecution, "too many engines are loaded");
}

void for_each_engine(
    void (*visit)(const AotiEngine& engine, void* visitor), void* visitor) noexcept {
  for (const auto& slot : engines) {
    const AotiEngine* const engine = slot.load(std::memory_order_acquire);
    if (engine == nullptr) {
      return;
    }
    visit(*engine, visitor);
  }
}

const AotiEngine* device_engine() noexcept {
  const AotiEngine* found = nullptr;
  for_each_engine(
      [](const AotiEngine& engine, void* visitor) {
        auto*& first = *static_cast<const AotiEngine**>(visitor);
        if (first == nullptr && engine.devices != nullptr) {
          first = &engine;
        }
      },
      &found);
  return found;
}

Status engine_failure(const AotiEngine& engine, int32_t code) noexcept {
  const char *message = "", *detail = "";
  engine.last_error(&message, &detail);
  return failed(
      code == AOTI_OUT_OF_MEMORY ? StatusCode::kNoMemory : StatusCode::kExecution, message, detail);
}

}  // namespace aoti
