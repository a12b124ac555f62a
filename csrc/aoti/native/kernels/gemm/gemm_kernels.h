#pragma once

// What each set of instructions has its own code for, and the products made of it.

#include <aoti/native/kernels/gemm/gemm.h>
#include <aoti/native/kernels/isa.h>

namespace aoti::native {

// c = alpha * a @ b + beta * c, or a part of it. The kernels below ask for unit strides here and
// there; they run on one thread, and compute an element of c in the same way whatever the part.
struct Product {
  int64_t m;
  int64_t n;
  int64_t k;
  float alpha;
  Matrix a;
  Matrix b;
  float beta;
  float* c;
  int64_t c_row_stride;
  int64_t c_column_stride;
  // How many elements behind b the next product's b begins, if tiles() is to fetch it; 0 if not.
  // All tiles share that out: memory gives a cache line in the time of many products.
  int64_t ahead = 0;
};

struct GemmKernels {
  int64_t rows;     // the most rows that tiles() has in registers at once
  int64_t columns;  // and columns, which is how wide to pack b
  int64_t width;    // the floats of a vector
  // By tiles of c in registers. Unit column strides of a, b and c.
  void (*tiles)(const Product&) noexcept;
  // A c of one element, by a sum along k. Unit column stride of a, unit row stride of b.
  void (*dot)(const Product&) noexcept;
  // By sums along k. Unit column stride of a, unit row stride of b. Made for a small m.
  void (*dots)(const Product&) noexcept;
  // By sweeps along rows of b. Unit column strides of b and c. Made for an m of 1 or 2.
  void (*sweep)(const Product&) noexcept;
  // Copies rows of b into panels, which are `columns` wide and hold `depth` rows.
  void (*pack)(
      int64_t rows,
      int64_t columns,
      const float* from,
      int64_t from_stride,
      float* to,
      int64_t depth) noexcept;
  // to[j * to_stride + i] = from[i * from_stride + j], for i < rows and j < columns
  void (*transpose)(
      int64_t rows,
      int64_t columns,
      const float* from,
      int64_t from_stride,
      float* to,
      int64_t to_stride) noexcept;
};

// Those of an ISA, which the CPU must have.
const GemmKernels& gemm_kernels(Isa isa) noexcept;

extern const GemmKernels generic_gemm_kernels;
#if defined(__x86_64__)
extern const GemmKernels avx2_gemm_kernels;
extern const GemmKernels avx512_gemm_kernels;
#endif

// gemm and gemm_batched by the kernels of any ISA.
void gemm(const GemmKernels& kernels, const Product& product);
void gemm_batched(
    const GemmKernels& kernels,
    int64_t batch,
    const Product& first,
    int64_t a_batch,
    int64_t b_batch,
    int64_t c_batch);

}  // namespace aoti::native
