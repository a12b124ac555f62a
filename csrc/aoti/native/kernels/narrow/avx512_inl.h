// What kernels of vectors of 512 bits share: how they divide a product, and vectors of floats and
// of bfloat16. Included like tiles_inl.h, behind it.

// With the vectors of b and one of a, tiles take 29 to 31 of 32 registers. Kernel::kRows is how
// many rows one of four vectors has.
template <class Kernel>
void multiply(
    const NarrowProduct<typename Kernel::Left, typename Kernel::Right, typename Kernel::Sum>&
        x) noexcept {
  const Operands<Kernel> operands = {x.k, x.a, x.a_stride, x.b, x.n, x.c, x.c_stride, false};
  int64_t j = 0;
  for (; x.n - j >= 64; j += 64) {
    strip<Kernel, Kernel::kRows, 4>(operands, x.m, j);
  }
  if (x.n - j == 48) {
    strip<Kernel, 9, 3>(operands, x.m, j);
  } else if (x.n - j == 32) {
    strip<Kernel, 14, 2>(operands, x.m, j);
  } else if (x.n - j == 16) {
    strip<Kernel, 14, 1>(operands, x.m, j);
  }
}

template <int kV>
void store_floats(float* to, const __m512 (&sums)[kV]) noexcept {
#pragma GCC unroll 16
  for (int v = 0; v < kV; ++v) {
    _mm512_storeu_ps(to + 16 * v, sums[v]);
  }
}

// What kernels of bfloat16 have in common: a vector holds two rows of b in 16 columns.
struct Pairs {
  using Left = uint16_t;
  using Right = uint16_t;
  using Sum = float;
  using Vector = __m512;
  using Factor = __m512i;
  static constexpr int64_t kWidth = 16;
  static constexpr int64_t kStep = 2;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Factor splat(const uint16_t* from) {
    int32_t two;
    std::memcpy(&two, from, sizeof two);
    return _mm512_set1_epi32(two);
  }
  static Factor load(const uint16_t* from) { return _mm512_loadu_si512(from); }
  template <int kV>
  static void store(float* to, const Vector (&sums)[kV], bool) {
    store_floats(to, sums);
  }
};
