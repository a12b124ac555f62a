// Products of bfloat16 by AVX-512 BF16.

#if defined(__x86_64__)

#include <aoti/native/kernels/narrow/narrow.h>

#include <immintrin.h>

#include <cstring>
#include <utility>

// After the headers: what they define must run on any CPU.
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")

namespace aoti::native {

namespace {

#include <aoti/native/kernels/narrow/tiles_inl.h>

#include <aoti/native/kernels/narrow/avx512_inl.h>

struct Halves : Pairs {
  static constexpr int kRows = 6;

  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    return _mm512_dpbf16_ps(
        sums, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
  }
};

}  // namespace

void multiply_halves_bf16(const HalfProduct& product) noexcept { multiply<Halves>(product); }

}  // namespace aoti::native

#endif
