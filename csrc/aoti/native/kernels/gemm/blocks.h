#pragma once

// Large products, block by block, on one thread.

#include <aoti/native/kernels/gemm/gemm_kernels.h>

namespace aoti::native {

// By copies of blocks of the operands, whose strides may be any. c has a unit column stride.
void packed(const GemmKernels& kernels, const Product& product);

// By tiles() on `depth` rows of b at a time. Strides as tiles() asks for.
void in_steps(const GemmKernels& kernels, const Product& product, int64_t depth) noexcept;

// The same on a few columns at a time: to read a few columns of all rows, which lie far apart,
// misses caches and pages.
void unpacked(const GemmKernels& kernels, const Product& product, int64_t depth) noexcept;

// to[i * to_stride + j] = element (i, j) of `from`
void copy_rows(
    const GemmKernels& kernels,
    int64_t rows,
    int64_t columns,
    Matrix from,
    float* to,
    int64_t to_stride) noexcept;

}  // namespace aoti::native
