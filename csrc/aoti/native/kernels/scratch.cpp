#include <aoti/native/kernels/scratch.h>

#include <cstddef>
#include <memory>
#include <new>

namespace aoti::native {

namespace {

constexpr std::align_val_t kAlignment{64};
constexpr int64_t kKept = 16 * 1024 * 1024 / sizeof(float);  // what is larger is freed after use

struct Free {
  void operator()(float* data) const noexcept { ::operator delete[](data, kAlignment); }
};

struct Kept {
  std::unique_ptr<float[], Free> data;
  int64_t count = 0;
};

thread_local Kept kept[Scratch::kSlots];

}  // namespace

Scratch::Scratch(Slot slot, int64_t count) : slot_(slot) {
  Kept& mine = kept[slot];
  if (mine.count < count) {
    mine.data.reset();
    mine.count = 0;
    mine.data.reset(new (kAlignment) float[static_cast<size_t>(count)]);
    mine.count = count;
  }
  data_ = mine.data.get();
}

Scratch::~Scratch() {
  Kept& mine = kept[slot_];
  if (mine.count > kKept) {
    mine.data.reset();
    mine.count = 0;
  }
}

}  // namespace aoti::native
