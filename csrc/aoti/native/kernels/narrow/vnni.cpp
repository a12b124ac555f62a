// Products of bytes by AVX-512 VNNI.

#if defined(__x86_64__)

#include <aoti/native/kernels/narrow/narrow.h>

#include <immintrin.h>

#include <cstring>
#include <utility>

// After the headers: what they define must run on any CPU.
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")

namespace aoti::native {

namespace {

#include <aoti/native/kernels/narrow/tiles_inl.h>

#include <aoti/native/kernels/narrow/avx512_inl.h>

struct Bytes {
  using Left = uint8_t;
  using Right = int8_t;
  using Sum = int32_t;
  using Vector = __m512i;
  using Factor = __m512i;
  static constexpr int64_t kWidth = 16;
  static constexpr int64_t kStep = 4;
  static constexpr int kRows = 6;

  static Vector zero() { return _mm512_setzero_si512(); }
  static Factor splat(const uint8_t* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Factor load(const int8_t* from) { return _mm512_loadu_si512(from); }
  static Vector multiply_add(Factor left, Factor right, Vector sums) {
    return _mm512_dpbusd_epi32(sums, left, right);
  }
  template <int kV>
  static void store(int32_t* to, const Vector (&sums)[kV], bool) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      _mm512_storeu_si512(to + v * kWidth, sums[v]);
    }
  }
};

}  // namespace

void multiply_bytes_vnni(const ByteProduct& product) noexcept { multiply<Bytes>(product); }

}  // namespace aoti::native

#endif
