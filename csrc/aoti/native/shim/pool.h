#pragma once

// The memory of large tensors, kept from one call to the next: the system clears every page that it
// gives out, which takes longer than many operators (MobileNetV2: half of a call).

#include <cstddef>

namespace aoti::native::pool {

// The head of a piece of memory, which begins right behind it.
struct Piece {
  std::size_t capacity;  // bytes
  bool counted;

  void* data() noexcept { return this + 1; }

 private:
  char padding_[64 - sizeof(std::size_t) - sizeof(bool)];
};
static_assert(sizeof(Piece) == 64);

// What is smaller is left to malloc.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kLeast = static_cast<std::size_t>(-1);  // so that every tensor is watched
#else
constexpr std::size_t kLeast = 64 * 1024;
#endif

// At least so many bytes, not initialised. From any thread; no thread waits for another. Throws
// std::bad_alloc.
Piece* take(std::size_t bytes);

// Keeps a piece, or gives it back to the system. What is kept and what is in use are together never
// more than twice what was in use at once lately: calls whose tensors have several sizes would else
// ask the system again and again.
void give(Piece* piece) noexcept;

// To be said after each call of a model: "lately" are the last hundred calls or so.
void called() noexcept;

// Gives what is kept back to the system, as if there had been no calls.
void clear() noexcept;

}  // namespace aoti::native::pool
