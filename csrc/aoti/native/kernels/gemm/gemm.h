#pragma once

// Products of float32 matrices. A result does not depend on the number of threads: they share out
// rows and columns of it, and each element is summed in an order that the sizes and strides decide.

#include <cstdint>

namespace aoti::native {

// Strides count elements; any will do, 0 and negative ones included.
struct Matrix {
  const float* data;
  int64_t row_stride;
  int64_t column_stride;
};

// c = alpha * a @ b + beta * c, for a of m x k, b of k x n and c of m x n, whose rows lie
// `c_stride` elements apart. With beta == 0, c is not read; alpha == 0 is a factor like any other.
// c overlaps neither a nor b. Runs on OpenMP's threads where that is worthwhile, unless the caller
// is one of several already.
void gemm(
    int64_t m,
    int64_t n,
    int64_t k,
    float alpha,
    Matrix a,
    Matrix b,
    float beta,
    float* c,
    int64_t c_stride);

// As many products as `batch`; the operands of each lie `a_batch`, `b_batch` and `c_batch` elements
// after those of the one before. Equal to as many calls of gemm, bit by bit.
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
    int64_t c_stride);

// c = a @ b, or c += a @ b where `add` is set, for row-major operands whose rows lie `lda`, `ldb`
// and `ldc` elements apart. For blocks that fit into a cache: one thread, no packing, no memory.
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
    float* c) noexcept;

// to[j * to_stride + i] = from[i * from_stride + j], for i < rows and j < columns.
void transpose_matrix(
    int64_t rows,
    int64_t columns,
    const float* from,
    int64_t from_stride,
    float* to,
    int64_t to_stride) noexcept;

}  // namespace aoti::native
