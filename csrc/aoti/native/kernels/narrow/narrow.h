#pragma once

// Products with matrices of bytes and of bfloat16, for layers with weights of 8 and 16 bits.

#include <aoti/native/kernels/isa.h>

#include <cstdint>

namespace aoti::native {

// c = a @ b, for a of m x k, b of k x n and c of m x n. Rows of a and c lie `a_stride` and
// `c_stride` elements apart. n is a multiple of 16. On one thread, without other memory.
template <class Left, class Right, class Sum>
struct NarrowProduct {
  int64_t m;
  int64_t n;
  int64_t k;
  const Left* a;
  int64_t a_stride;
  const Right* b;
  Sum* c;
  int64_t c_stride;
};

// b has as many rows side by side as a step has, and k is a multiple of that:
// b[(p / step * n + j) * step + p % step] is element (p, j).

// Steps of 4. Exact sums, which wrap around.
using ByteProduct = NarrowProduct<uint8_t, int8_t, int32_t>;

// Steps of 1. Bytes as floats.
using WideProduct = NarrowProduct<float, int8_t, float>;

// Steps of 2. Numbers of bfloat16; those that are not normal may be taken for zero.
using HalfProduct = NarrowProduct<uint16_t, uint16_t, float>;

constexpr int64_t kNarrowColumns = 16;

// A pointer is null if this CPU has no kernel for that product.
struct NarrowKernels {
  void (*bytes)(const ByteProduct&) noexcept;
  void (*wide)(const WideProduct&) noexcept;
  void (*halves)(const HalfProduct&) noexcept;
};

// Those for this CPU.
const NarrowKernels& narrow_kernels() noexcept;

// Those of an ISA, which the CPU must have.
NarrowKernels narrow_kernels(Isa isa) noexcept;

#if defined(__x86_64__)
void multiply_bytes_avx2(const ByteProduct& product) noexcept;
void multiply_bytes_vnni(const ByteProduct& product) noexcept;  // AVX-512 VNNI
void multiply_wide_avx2(const WideProduct& product) noexcept;
void multiply_wide_avx512(const WideProduct& product) noexcept;
void multiply_halves_avx2(const HalfProduct& product) noexcept;
void multiply_halves_avx512(const HalfProduct& product) noexcept;
void multiply_halves_bf16(const HalfProduct& product) noexcept;  // AVX-512 BF16
#endif

}  // namespace aoti::native
