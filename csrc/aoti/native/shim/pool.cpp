#include <aoti/native/shim/pool.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <new>
#include <vector>

namespace aoti::native::pool {

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kLoose = 4;
constexpr int kLately = 64;  // calls

struct Pool {
  std::atomic<bool> locked = false;
  std::vector<Piece*> kept;  // the newest last
  std::size_t kept_bytes = 0;
  std::size_t most = 0, most_lately = 0;  // of used_bytes
  std::atomic<unsigned> calls = 0;
  std::atomic<std::size_t> used_bytes = 0;  // of counted pieces; the rest is locked
};

// Not destroyed: tensors may be given back while the process ends.
Pool& shared() noexcept {
  static Pool& pool = *new Pool;
  return pool;
}

// The lock, if nobody has it. A child that was forked while it was held never gets it, and then
// keeps nothing. (No std::mutex: its try_lock is a symbol of glibc 2.34.)
class Lock {
 public:
  explicit Lock(Pool& pool) noexcept
      : pool_(pool), held_(!pool.locked.exchange(true, std::memory_order_acquire)) {}
  ~Lock() {
    if (held_) {
      pool_.locked.store(false, std::memory_order_release);
    }
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  explicit operator bool() const noexcept { return held_; }

 private:
  Pool& pool_;
  const bool held_;
};

void unmap(Piece* piece) noexcept { ::munmap(piece, piece->capacity + sizeof(Piece)); }

// The smallest kept piece that is large enough; not a huge one, which somebody may keep for long.
Piece* find(Pool& pool, std::size_t bytes) noexcept {
  auto best = pool.kept.end();
  for (auto piece = pool.kept.begin(); piece != pool.kept.end(); ++piece) {
    const std::size_t capacity = (*piece)->capacity;
    if (capacity >= bytes && capacity / kLoose <= bytes &&
        (best == pool.kept.end() || capacity <= (*best)->capacity)) {
      best = piece;
    }
  }
  if (best == pool.kept.end()) {
    return nullptr;
  }
  Piece* const found = *best;
  pool.kept.erase(best);
  pool.kept_bytes -= found->capacity;
  return found;
}

// Gives the oldest pieces back until no more is kept than should be.
void shrink(Pool& pool) noexcept {
  const std::size_t limit = 2 * pool.most, used = pool.used_bytes;
  auto last = pool.kept.begin();
  for (; pool.kept_bytes > limit - std::min(used, limit); ++last) {
    pool.kept_bytes -= (*last)->capacity;
    unmap(*last);
  }
  pool.kept.erase(pool.kept.begin(), last);
}

void use(Pool& pool, Piece* piece) noexcept {
  piece->counted = true;
  const std::size_t used = pool.used_bytes += piece->capacity;
  pool.most_lately = std::max(pool.most_lately, used);
  pool.most = std::max(pool.most, used);
}

}  // namespace

Piece* take(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) {
    throw std::bad_alloc();
  }
  Pool& pool = shared();
  const Lock lock(pool);
  if (lock) {
    if (Piece* const kept = find(pool, bytes); kept != nullptr) {
      use(pool, kept);
      return kept;
    }
  }
  const std::size_t size = (bytes + sizeof(Piece) + kPage - 1) / kPage * kPage;
  void* const room =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) {
    throw std::bad_alloc();
  }
  auto* const piece = new (room) Piece;
  piece->capacity = size - sizeof(Piece);
  piece->counted = false;
  if (lock) {
    use(pool, piece);
  }
  return piece;
}

void give(Piece* piece) noexcept {
  if (!piece->counted) {
    return unmap(piece);
  }
  Pool& pool = shared();
  pool.used_bytes -= piece->capacity;
  const Lock lock(pool);
  if (!lock) {
    return unmap(piece);
  }
  try {
    pool.kept.push_back(piece);
  } catch (const std::bad_alloc&) {
    return unmap(piece);
  }
  pool.kept_bytes += piece->capacity;
  shrink(pool);
}

void called() noexcept {
  Pool& pool = shared();
  if (pool.calls.fetch_add(1, std::memory_order_relaxed) % kLately != kLately - 1) {
    return;
  }
  if (const Lock lock(pool); lock) {
    pool.most = std::max<std::size_t>(pool.most_lately, pool.used_bytes);
    pool.most_lately = pool.used_bytes;
    shrink(pool);
  }
}

void clear() noexcept {
  Pool& pool = shared();
  if (const Lock lock(pool); lock) {
    pool.most = pool.most_lately = pool.used_bytes;
    shrink(pool);
  }
}

}  // namespace aoti::native::pool
