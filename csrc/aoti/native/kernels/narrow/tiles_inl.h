// Tiles of a product, in registers. No header in the usual sense: a file of kernels includes it
// inside its anonymous namespace, so that each compiles it for its own instructions. Kernel says:
//
// - Left, Right and Sum: what elements of a, b and c are stored as;
// - Vector: a vector of sums, of kWidth columns, and Factor: one of b in as many columns;
// - kStep: the rows of b that a vector holds;
// - zero, splat, load, multiply_add and store.
//
// gcc 12 keeps an array of vectors in registers only if it unrolls every loop over it.

template <class Kernel>
struct Operands {
  int64_t depth;
  const typename Kernel::Left* a;
  int64_t a_stride;
  const typename Kernel::Right* b;
  int64_t b_columns;  // of all of b
  typename Kernel::Sum* c;
  int64_t c_stride;
  bool add;  // to c
};

template <class Kernel, int kR, int kV>
void tile(const Operands<Kernel>& x, int64_t i, int64_t j) noexcept {
  constexpr int64_t kStep = Kernel::kStep;
  const int64_t a_stride = x.a_stride;
  const int64_t b_step = kStep * x.b_columns;
  const auto* a = x.a + i * a_stride;
  const auto* b = x.b + kStep * j;
  typename Kernel::Vector sums[kR][kV];
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      sums[r][v] = Kernel::zero();
    }
  }
  for (int64_t p = 0; p < x.depth; p += kStep) {
    typename Kernel::Factor right[kV];
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      right[v] = Kernel::load(b + v * Kernel::kWidth * kStep);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      const auto left = Kernel::splat(a + r * a_stride);
#pragma GCC unroll 16
      for (int v = 0; v < kV; ++v) {
        sums[r][v] = Kernel::multiply_add(left, right[v], sums[r][v]);
      }
    }
    a += kStep;
    b += b_step;
  }
  auto* c = x.c + i * x.c_stride + j;
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r) {
    Kernel::template store<kV>(c, sums[r], x.add);
    c += x.c_stride;
  }
}

// A tile for each number of rows up to the most, so that rows left over have one, too.
template <class Kernel, int kMost>
struct Tiles {
  void (*of[kMost])(const Operands<Kernel>&, int64_t, int64_t) noexcept;
};

template <class Kernel, int kV, int... kR>
constexpr Tiles<Kernel, sizeof...(kR)> tiles_of(std::integer_sequence<int, kR...>) {
  return {{&tile<Kernel, kR + 1, kV>...}};
}

// All rows of some columns, by tiles of about the same height.
template <class Kernel, int kMost, int kV>
void strip(const Operands<Kernel>& x, int64_t rows, int64_t j) noexcept {
  static constexpr auto kTiles = tiles_of<Kernel, kV>(std::make_integer_sequence<int, kMost>());
  for (int64_t i = 0, left = (rows + kMost - 1) / kMost; left > 0; --left) {
    const int64_t some = (rows - i + left - 1) / left;
    kTiles.of[some - 1](x, i, j);
    i += some;
  }
}
