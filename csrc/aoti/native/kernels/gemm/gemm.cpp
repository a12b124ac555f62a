#include <aoti/native/kernels/gemm/gemm.h>

#include <aoti/native/kernels/gemm/blocks.h>
#include <aoti/native/kernels/gemm/gemm_kernels.h>
#include <aoti/native/kernels/scratch.h>
#include <aoti/native/kernels/threads.h>

#include <algorithm>

namespace aoti::native {

namespace {

enum class Way {
  kDot,       // one element
  kDots,      // b by columns, few rows: sums along k
  kSweep,     // b by rows, one or two rows of c
  kTiles,     // b by rows, small
  kUnpacked,  // b by rows, few rows of c
  kPacked,    // b copied, block by block
};

// How a product is computed, for all of its parts alike: it decides in which order they are summed.
struct Plan {
  Way way;
  int64_t depth;  // of kUnpacked
};

Product transposed(const Product& x) noexcept {
  Product t = x;
  t.m = x.n;
  t.n = x.m;
  t.a = {x.b.data, x.b.column_stride, x.b.row_stride};
  t.b = {x.a.data, x.a.column_stride, x.a.row_stride};
  t.c_row_stride = x.c_column_stride;
  t.c_column_stride = x.c_row_stride;
  return t;
}

// Strides that nothing is reached by become 1, so that a kernel that asks for that may be used.
void settle_strides(Product& x) noexcept {
  if (x.k == 1) {
    x.a.column_stride = 1;
  }
  if (x.n == 1) {
    x.b.column_stride = 1;
    x.c_column_stride = 1;
  }
}

void scale(const Product& x) noexcept {
  for (int64_t i = 0; i < x.m; ++i) {
    for (int64_t j = 0; j < x.n; ++j) {
      float& c = x.c[i * x.c_row_stride + j * x.c_column_stride];
      c = x.beta == 0 ? 0 : x.beta * c;
    }
  }
}

// Whether sums along k, which use b as it is, cost less than a copy of it.
bool few_rows(const GemmKernels& kernels, const Product& x) noexcept {
  const int64_t vectors = (x.k + kernels.width - 1) / kernels.width;
  return x.m <= 2 || (vectors >= 4 && x.m <= 4) || (vectors >= 32 && x.m <= 16);
}

Plan choose(const GemmKernels& kernels, const Product& x) noexcept {
  if (x.m == 1 && x.n == 1 && x.b.row_stride == 1) {
    return {Way::kDot, 0};
  }
  const bool rows = x.b.column_stride == 1 && x.c_column_stride == 1;
  if (!rows && x.b.row_stride == 1 && few_rows(kernels, x)) {
    return {Way::kDots, 0};
  }
  const bool many_rows_to_copy = x.m > 4 * kernels.rows && x.a.column_stride != 1;
  if (!rows || many_rows_to_copy) {
    return {Way::kPacked, 0};
  }
  if (x.m <= 2 && x.n > 4 * kernels.width) {
    return {Way::kSweep, 0};
  }
  const int64_t size = x.k * x.n;
  if (size <= 16 * 1024) {
    return {Way::kTiles, 0};
  }
  if (x.m <= kernels.rows) {
    return {Way::kUnpacked, 16};
  }
  if (x.m <= 3 * kernels.rows && size <= 1024 * 1024) {
    return {Way::kUnpacked, 32};
  }
  return {Way::kPacked, 0};
}

void run(const GemmKernels& kernels, Plan plan, const Product& x) {
  switch (plan.way) {
    case Way::kDot:
      return kernels.dot(x);
    case Way::kDots:
      return kernels.dots(x);
    case Way::kSweep:
      return kernels.sweep(x);
    case Way::kTiles:
      return kernels.tiles(x);
    case Way::kUnpacked:
      return unpacked(kernels, x, plan.depth);
    case Way::kPacked:
      return packed(kernels, x);
  }
}

Product part_of(const Product& x, Range rows, Range columns) noexcept {
  Product part = x;
  part.m = rows.end - rows.begin;
  part.n = columns.end - columns.begin;
  part.a.data += rows.begin * x.a.row_stride;
  part.b.data += columns.begin * x.b.column_stride;
  part.c += rows.begin * x.c_row_stride + columns.begin * x.c_column_stride;
  return part;
}

// On `threads` threads, which share out the rows and columns of c.
void run(const GemmKernels& kernels, Plan plan, const Product& x, int64_t threads) {
  const int64_t height = kernels.rows;
  const int64_t width = kernels.columns;
  const Grid grid = share(x.m, height, x.n, width, threads);
  if (grid.rows * grid.columns <= 1) {
    return run(kernels, plan, x);
  }
  parallel(grid.rows * grid.columns, [&](int64_t thread) {
    const Range rows = range_of(x.m, height, grid.rows, thread / grid.columns);
    const Range columns = range_of(x.n, width, grid.columns, thread % grid.columns);
    if (rows.begin < rows.end && columns.begin < columns.end) {
      run(kernels, plan, part_of(x, rows, columns));
    }
  });
}

// How many threads a product keeps busy for some ten microseconds, at least.
int64_t threads_for(const Product& x) noexcept {
  const double work = static_cast<double>(x.k) * static_cast<double>(x.n) *
                      (static_cast<double>(x.m) + 4);  // 4: to read b takes time, too
  const double most = work / (512 * 1024);
  return most < 2 ? 1 : std::min(threads_here(), static_cast<int64_t>(std::min(most, 1024.0)));
}

// Whether c has one or two columns, and dots() or sweep() can compute its transpose.
bool better_transposed(const Product& x) noexcept {
  return x.n < x.m &&
         (x.a.column_stride == 1 ? x.n <= 2
                                 : x.n == 1 && x.a.row_stride == 1 && x.c_row_stride == 1);
}

void multiply(const GemmKernels& kernels, const Product& product, int64_t threads) {
  Product x = product;
  settle_strides(x);
  if (better_transposed(x)) {
    x = transposed(x);
    settle_strides(x);
  }
  const Plan plan = choose(kernels, x);
  const bool any_strides = plan.way == Way::kSweep || plan.way == Way::kPacked;
  if (!any_strides && x.a.column_stride != 1) {
    const Scratch copy(Scratch::kLeft, x.m * x.k);
    copy_rows(kernels, x.m, x.k, x.a, copy.data(), x.k);
    x.a = {copy.data(), x.k, 1};
    return run(kernels, plan, x, threads);
  }
  run(kernels, plan, x, threads);
}

}  // namespace

void gemm(const GemmKernels& kernels, const Product& product) {
  if (product.m <= 0 || product.n <= 0) {
    return;
  }
  if (product.k <= 0) {
    return scale(product);
  }
  multiply(kernels, product, threads_for(product));
}

void gemm_batched(
    const GemmKernels& kernels,
    int64_t batch,
    const Product& first,
    int64_t a_batch,
    int64_t b_batch,
    int64_t c_batch) {
  const auto product = [&](int64_t index) {
    Product x = first;
    x.a.data += index * a_batch;
    x.b.data += index * b_batch;
    x.c += index * c_batch;
    return x;
  };
  if (batch <= 0 || first.m <= 0 || first.n <= 0) {
    return;
  }
  Product all = first;
  all.m *= batch;
  const int64_t threads = std::min(batch, threads_for(all));
  if (first.k > 0 && threads > 1 && (threads_for(first) <= 1 || batch >= 2 * threads)) {
    return parallel(threads, [&](int64_t thread) {
      const Range mine = range_of(batch, 1, threads, thread);
      for (int64_t index = mine.begin; index < mine.end; ++index) {
        multiply(kernels, product(index), 1);
      }
    });
  }
  for (int64_t index = 0; index < batch; ++index) {
    gemm(kernels, product(index));
  }
}

const GemmKernels& gemm_kernels([[maybe_unused]] Isa isa) noexcept {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) {
    return avx512_gemm_kernels;
  }
  if (isa == Isa::kAvx2) {
    return avx2_gemm_kernels;
  }
#endif
  return generic_gemm_kernels;
}

void gemm(
    int64_t m,
    int64_t n,
    int64_t k,
    float alpha,
    Matrix a,
    Matrix b,
    float beta,
    float* c,
    int64_t c_stride) {
  gemm(gemm_kernels(isa()), {m, n, k, alpha, a, b, beta, c, c_stride, 1});
}

void gemm_batched(
    int64_t batch,
    int64_t m,
    int64_t n,
    int64_t k,
    float alpha,
    Matrix a,
    int64_t a_batch,
    Matrix b,
    int64_t b_batch,
    float beta,
    float* c,
    int64_t c_batch,
    int64_t c_stride) {
  const Product first = {m, n, k, alpha, a, b, beta, c, c_stride, 1};
  gemm_batched(gemm_kernels(isa()), batch, first, a_batch, b_batch, c_batch);
}

void brgemm(
    int64_t m,
    int64_t n,
    int64_t k,
    int64_t lda,
    int64_t ldb,
    int64_t ldc,
    bool add,
    const float* a,
    const float* b,
    float* c) noexcept {
  // Many rows read columns of b again and again: they take as many rows of it at a time as stay in
  // the near caches. (512x768x3072 in blocks of 64, on an AMD EPYC 9004: 1.29 times as fast by
  // AVX2, 1.03 by AVX-512.) Few rows do the same, so that the sum for a row does not depend on how
  // many rows come with it.
  constexpr int64_t kDeep = 1024, kStep = 512;
  const int64_t parts = k > kDeep ? (k + kStep - 1) / kStep : 1;
  const int64_t step = (k + parts - 1) / parts;
  // Where b is a block of packed weights, the next part or block comes right behind this one. A
  // product of few rows waits for memory more than it computes, so it asks for that, too.
  constexpr int64_t kLarge = 4096;  // elements
  const int64_t ahead = ldb == n && k * n >= kLarge ? k * n : 0;
  const float beta = add ? 1 : 0;
  in_steps(
      gemm_kernels(isa()), {m, n, k, 1, {a, lda, 1}, {b, ldb, 1}, beta, c, ldc, 1, ahead}, step);
}

void transpose_matrix(
    int64_t rows,
    int64_t columns,
    const float* from,
    int64_t from_stride,
    float* to,
    int64_t to_stride) noexcept {
  gemm_kernels(isa()).transpose(rows, columns, from, from_stride, to, to_stride);
}

}  // namespace aoti::native
