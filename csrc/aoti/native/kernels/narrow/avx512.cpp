// Products of floats with bytes, and of bfloat16, by AVX-512.

#if defined(__x86_64__)

#include <aoti/native/kernels/narrow/narrow.h>

#include <immintrin.h>

#include <cstring>
#include <utility>

// After the headers: what they define must run on any CPU.
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

namespace aoti::native {

namespace {

#include <aoti/native/kernels/narrow/tiles_inl.h>

#include <aoti/native/kernels/narrow/avx512_inl.h>

struct Wide {
  using Left = float;
  using Right = int8_t;
  using Sum = float;
  using Vector = __m512;
  using Factor = __m512;
  static constexpr int64_t kWidth = 16;
  static constexpr int64_t kStep = 1;
  static constexpr int kRows = 6;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Factor splat(const float* from) { return _mm512_set1_ps(*from); }
  static Factor load(const int8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    // gcc 12 says of the plain forms that they use what is uninitialized.
    return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
  }
  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    return _mm512_fmadd_ps(left, right, sums);
  }
  template <int kV>
  static void store(float* to, const Vector (&sums)[kV], bool) {
    store_floats(to, sums);
  }
};

struct Halves : Pairs {
  static constexpr int kRows = 5;

  static Vector first(Factor two) {
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, two, 16));
  }
  static Vector second(Factor two) {
    return _mm512_castsi512_ps(_mm512_and_si512(two, _mm512_set1_epi32(-0x10000)));
  }
  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    sums = _mm512_fmadd_ps(first(left), first(right), sums);
    return _mm512_fmadd_ps(second(left), second(right), sums);
  }
};

}  // namespace

void multiply_halves_avx512(const HalfProduct& product) noexcept { multiply<Halves>(product); }

void multiply_wide_avx512(const WideProduct& product) noexcept { multiply<Wide>(product); }

}  // namespace aoti::native

#endif
