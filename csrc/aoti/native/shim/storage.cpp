#include <aoti/native/shim/storage.h>

#include <aoti/native/shim/pool.h>

#include <cstdlib>
#include <limits>
#include <new>

namespace aoti::native {

namespace {

constexpr std::size_t kAlignment = 64;

}  // namespace

// Of small memory, the block is a part: both come from one call of malloc, which keeps small pieces
// for each thread; aligned_alloc does not.
Storage Storage::allocate(std::size_t bytes) {
  if (bytes >= pool::kLeast) {
    pool::Piece* const piece = pool::take(bytes);
    Storage made = over(
        piece->data(), piece, [](void* owner) { pool::give(static_cast<pool::Piece*>(owner)); });
    made.set_bytes(bytes);
    return made;
  }
  constexpr std::size_t kExtra = sizeof(Block) + kAlignment;
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) {
    throw std::bad_alloc();
  }
  void* const room = std::malloc(kExtra + bytes);
  if (room == nullptr) {
    throw std::bad_alloc();
  }
  auto* const block = new (room) Block;
  const auto address = reinterpret_cast<std::uintptr_t>(room) + sizeof(Block);
  block->data = bytes == 0
                    ? nullptr
                    : reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
  block->bytes = bytes;
  return Storage(block);
}

Storage Storage::over(void* data, void* owner, void (*release)(void*)) {
  void* const room = std::malloc(sizeof(Block));
  if (room == nullptr) {
    if (release != nullptr) {
      release(owner);
    }
    throw std::bad_alloc();
  }
  auto* const block = new (room) Block;
  block->data = data;
  block->owner = owner;
  block->release = release;
  block->borrowed = release == nullptr;
  return Storage(block);
}

void Storage::destroy(Block* block) noexcept {
  if (block->release != nullptr) {
    block->release(block->owner);
  }
  block->~Block();
  std::free(block);
}

}  // namespace aoti::native
