#include <aoti/native/kernels/attention/attention.h>

#include <aoti/native/kernels/attention/task.h>
#include <aoti/native/kernels/scratch.h>
#include <aoti/native/kernels/threads.h>

#include <algorithm>

namespace aoti::native {

namespace attention {

namespace {

constexpr int64_t kMaxRowQueries = 4;    // up to here, a product of vectors for each score
constexpr int64_t kQueryBlock = 64;      // a multiple of every panel
constexpr int64_t kKeyBlock = 512;       //
constexpr int64_t kRowKeyBlock = 2048;   // where there is one row of scores
constexpr int64_t kCopied = 128 * 1024;  // floats that a copied block of keys may take
constexpr double kSerialWork = 150e3;    // multiplications that are done before threads awake

int64_t round_up(int64_t size, int64_t step) noexcept { return (size + step - 1) / step * step; }

int64_t blocks_of(const AttentionShape& shape, int64_t query_block) noexcept {
  return (shape.queries + query_block - 1) / query_block;
}

// Nothing that decides over the order of additions may look at the number of threads; the size of
// a block of queries is free, as a multiple of a panel.
Plan plan_for(const Attention& attention, int64_t width, int64_t threads) noexcept {
  const AttentionShape& shape = attention.shape;
  const bool converts = attention.element != Attention::Element::kFloat32;
  Plan plan{};
  plan.attention = attention;
  plan.by_rows = shape.queries <= kMaxRowQueries;
  plan.copy_keys = converts || (attention.key_strides.column != 1 && shape.head_size > 1);
  plan.copy_values = converts || (attention.value_strides.column != 1 && shape.value_size > 1);

  plan.key_block = plan.by_rows ? kRowKeyBlock : kKeyBlock;
  if (plan.copy_keys || plan.copy_values) {
    const int64_t row = std::max<int64_t>({shape.head_size, shape.value_size, 1});
    plan.key_block = std::clamp<int64_t>(kCopied / row, 64, kKeyBlock);
  }
  plan.key_block = std::min(plan.key_block, std::max<int64_t>(shape.keys, 1));

  const int64_t panel = kPanelVectors * width;
  plan.query_block = plan.by_rows ? shape.queries : kQueryBlock;
  const int64_t heads = shape.batch * shape.heads;
  while (!plan.by_rows && plan.query_block > panel &&
         heads * blocks_of(shape, plan.query_block) < 2 * threads) {
    plan.query_block /= 2;
  }

  const int64_t rows =
      plan.by_rows ? plan.query_block : round_up(std::min(plan.query_block, shape.queries), panel);
  const int64_t query_size = plan.by_rows ? round_up(shape.head_size, width) : shape.head_size;
  int64_t size = 0;
  const auto place = [&size](int64_t count) {
    const int64_t at = size;
    size += round_up(count, kAlignment);
    return at;
  };
  Layout& layout = plan.layout;
  layout.query = place(rows * query_size);
  layout.scores = place(plan.by_rows ? plan.key_block + kAlignment : rows * plan.key_block);
  layout.output = place(rows * round_up(shape.value_size, width));
  layout.maximum = place(rows);
  layout.sum = place(rows);
  layout.factor = place(rows);
  layout.bias = place(plan.key_block);
  layout.keys = place(plan.copy_keys ? plan.key_block * shape.head_size : 0);
  layout.values = place(plan.copy_values ? plan.key_block * shape.value_size : 0);
  layout.packed = place(plan.by_rows ? 0 : kValueKeys * round_up(shape.value_size, width));
  layout.size = size;
  return plan;
}

void run(const Plan& plan, int64_t index, const Backend& backend) {
  const AttentionShape& shape = plan.attention.shape;
  const int64_t blocks = blocks_of(shape, plan.query_block);
  const int64_t block = blocks - 1 - index % blocks;  // with causal, the longest first
  const int64_t head = index / blocks;
  const int64_t first = block * plan.query_block;
  const Task task{
      head / shape.heads,
      head % shape.heads,
      first,
      std::min(plan.query_block, shape.queries - first)};
  const Scratch scratch(Scratch::kAttention, plan.layout.size);
  backend.run(plan, task, scratch.data());
}

}  // namespace

const Backend& backend_of(Isa isa) noexcept {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx512:
      return avx512_backend;
    case Isa::kAvx2:
      return avx2_backend;
    case Isa::kGeneric:
      break;
  }
#else
  static_cast<void>(isa);
#endif
  return generic_backend;
}

void attend_with(const Backend& backend, const Attention& attention) {
  const AttentionShape& shape = attention.shape;
  if (shape.batch <= 0 || shape.heads <= 0 || shape.queries <= 0) {
    return;
  }
  const int64_t threads = threads_here();
  const Plan plan = plan_for(attention, backend.width, threads);
  const int64_t heads = shape.batch * shape.heads;
  const int64_t tasks = heads * blocks_of(shape, plan.query_block);
  const double work = static_cast<double>(heads) * static_cast<double>(shape.queries) *
                      static_cast<double>(shape.keys) *
                      static_cast<double>(shape.head_size + shape.value_size);
  if (threads == 1 || tasks == 1 || work < kSerialWork) {
    for (int64_t index = 0; index < tasks; ++index) {
      run(plan, index, backend);
    }
    return;
  }
  parallel_tasks(tasks, [&](int64_t index) { run(plan, index, backend); });
}

}  // namespace attention

void attend(const Attention& attention) {
  attention::attend_with(attention::backend_of(isa()), attention);
}

}  // namespace aoti::native
