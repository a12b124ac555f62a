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

struct Halves {
  using Left = uint16_t;
  using Right = uint16_t;
  using Sum = float;
  using Vector = __m512;
  using Factor = __m512i;
  static constexpr int64_t kWidth = 16;
  static constexpr int64_t kStep = 2;
  static constexpr int kRows = 6;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Factor splat(const uint16_t* from) {
    int32_t two;
    std::memcpy(&two, from, sizeof two);
    return _mm512_set1_epi32(two);
  }
  static Factor load(const uint16_t* from) { return _mm512_loadu_si512(from); }
  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    return _mm512_dpbf16_ps(
        sums, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
  }
  template <int kV>
  static void store(float* to, const Vector (&sums)[kV], bool) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      _mm512_storeu_ps(to + v * kWidth, sums[v]);
    }
  }
};

}  // namespace

void multiply_halves_bf16(const HalfProduct& product) noexcept { multiply<Halves>(product); }

}  // namespace aoti::native

#endif
