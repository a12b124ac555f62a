// Products with bytes, and of bfloat16, by AVX2.

#if defined(__x86_64__)

#include <aoti/native/kernels/narrow/narrow.h>

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

// After the headers: what they define must run on any CPU.
#pragma GCC target("avx2,fma,f16c")

namespace aoti::native {

namespace {

#include <aoti/native/kernels/narrow/tiles_inl.h>

// As 16-bit numbers: the instruction that multiplies bytes saturates the sums of two. A vector has
// two sums for each of four columns.
struct Bytes {
  using Left = int16_t;
  using Right = int8_t;
  using Sum = int32_t;
  using Vector = __m256i;
  using Factor = __m256i;
  static constexpr int64_t kWidth = 4;
  static constexpr int64_t kStep = 4;

  static Vector zero() { return _mm256_setzero_si256(); }
  static Factor splat(const int16_t* from) {
    return _mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static Factor load(const int8_t* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(left, right));
    // gcc 12 moves all products before the first sum, and then has no registers left.
    asm volatile("" : "+x"(sums));
    return sums;
  }
  template <int kV>
  static void store(int32_t* to, const Vector (&sums)[kV], bool add) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; v += 2) {
      // Columns 0, 1, 4, 5 and 2, 3, 6, 7
      const __m256i mixed = _mm256_hadd_epi32(sums[v], sums[v + 1]);
      __m256i value = _mm256_permute4x64_epi64(mixed, 0xd8);
      auto* const vector = reinterpret_cast<__m256i*>(to + v * kWidth);
      if (add) {
        value = _mm256_add_epi32(value, _mm256_loadu_si256(vector));
      }
      _mm256_storeu_si256(vector, value);
    }
  }
};

struct Wide {
  using Left = float;
  using Right = int8_t;
  using Sum = float;
  using Vector = __m256;
  using Factor = __m256;
  static constexpr int64_t kWidth = 8;
  static constexpr int64_t kStep = 1;

  static Vector zero() { return _mm256_setzero_ps(); }
  static Factor splat(const float* from) { return _mm256_broadcast_ss(from); }
  static Factor load(const int8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    return _mm256_fmadd_ps(left, right, sums);
  }
  template <int kV>
  static void store(float* to, const Vector (&sums)[kV], bool) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      _mm256_storeu_ps(to + v * kWidth, sums[v]);
    }
  }
};

struct Halves {
  using Left = uint16_t;
  using Right = uint16_t;
  using Sum = float;
  using Vector = __m256;
  using Factor = __m256i;
  static constexpr int64_t kWidth = 8;
  static constexpr int64_t kStep = 2;

  static Vector zero() { return _mm256_setzero_ps(); }
  static Factor splat(const uint16_t* from) {
    int32_t two;
    std::memcpy(&two, from, sizeof two);
    return _mm256_set1_epi32(two);
  }
  static Factor load(const uint16_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Vector first(Factor two) { return _mm256_castsi256_ps(_mm256_slli_epi32(two, 16)); }
  static Vector second(Factor two) {
    return _mm256_castsi256_ps(_mm256_and_si256(two, _mm256_set1_epi32(-0x10000)));
  }
  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    sums = _mm256_fmadd_ps(first(left), first(right), sums);
    return _mm256_fmadd_ps(second(left), second(right), sums);
  }
  template <int kV>
  static void store(float* to, const Vector (&sums)[kV], bool add) {
    Wide::store<kV>(to, sums, add);
  }
};

void widen(const uint8_t* from, int64_t count, int16_t* to) noexcept {
  int64_t at = 0;
  for (; at + 16 <= count; at += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at), _mm256_cvtepu8_epi16(bytes));
  }
  for (; at < count; ++at) {
    to[at] = from[at];
  }
}

// With 2 vectors of b and one of a, tiles of so many rows take 15 of 16 registers.
constexpr int kRows = 6;

template <class Kernel, int kMost>
void multiply(
    const NarrowProduct<typename Kernel::Left, typename Kernel::Right, typename Kernel::Sum>&
        x) noexcept {
  const Operands<Kernel> operands = {x.k, x.a, x.a_stride, x.b, x.n, x.c, x.c_stride, false};
  constexpr int kFew = 3;  // four vectors wide, so that sums do not wait for each other
  int64_t j = 0;
  for (; x.m <= kFew && x.n - j >= 4 * Kernel::kWidth; j += 4 * Kernel::kWidth) {
    strip<Kernel, kFew, 4>(operands, x.m, j);
  }
  for (; j < x.n; j += 2 * Kernel::kWidth) {
    strip<Kernel, kMost, 2>(operands, x.m, j);
  }
}

}  // namespace

void multiply_bytes_avx2(const ByteProduct& x) noexcept {
  constexpr int64_t kDepth = 256;  // of a, widened at a time; so many rows of b fit into L1
  alignas(32) int16_t wide[kRows * kDepth];
  for (int64_t i = 0; i < x.m; i += kRows) {
    const int64_t rows = std::min<int64_t>(kRows, x.m - i);
    for (int64_t p = 0; p < x.k || p == 0; p += kDepth) {
      const int64_t depth = std::min(kDepth, x.k - p);
      for (int64_t row = 0; row < rows; ++row) {
        widen(x.a + (i + row) * x.a_stride + p, depth, wide + row * kDepth);
      }
      const Operands<Bytes> operands = {
          depth, wide, kDepth, x.b + p * x.n, x.n, x.c + i * x.c_stride, x.c_stride, p > 0};
      for (int64_t j = 0; j < x.n; j += 2 * Bytes::kWidth) {
        strip<Bytes, kRows, 2>(operands, rows, j);
      }
    }
  }
}

void multiply_wide_avx2(const WideProduct& product) noexcept { multiply<Wide, kRows>(product); }

void multiply_halves_avx2(const HalfProduct& product) noexcept { multiply<Halves, 4>(product); }

}  // namespace aoti::native

#endif
