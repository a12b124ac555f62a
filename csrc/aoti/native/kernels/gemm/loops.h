// The loops that all sets of instructions share. No header in the usual sense: a file of kernels
// includes it inside its anonymous namespace, so that each compiles it for its own instructions.
// Before that, the file has defined:
//
// - Vector and Mask, kWidth: a vector of so many floats, and which of its lanes are in use;
// - kRows and kVectors: the rows of the largest tile of c that the registers hold, and its width;
// - kThreeRows and kFourRows: the rows of one that is three or four vectors wide; 0 if there is
// none;
// - kDotRows and kDotColumns: how many sums along k the registers hold;
// - zero, splat, load, store, add, multiply, multiply_add, add_lanes, first_lanes;
// - transpose_blocks: transpose() for multiples of kBlock rows and columns.
//
// gcc 12 keeps an array of vectors in registers only if it unrolls every loop over it, which -O2
// alone does not do. Else tiles take five times as long.

// The last vector has so many lanes in use, if kMasked. (No Mask: gcc 12 forgets vzeroupper where a
// vector is passed, and on an AMD EPYC 7003 what runs next then takes 0.1 us longer.)
template <int kR, int kV, bool kMasked>
void tile(const Product& x, int64_t i, int64_t j, [[maybe_unused]] int64_t lanes) noexcept {
  [[maybe_unused]] const Mask mask = kMasked ? first_lanes(lanes) : Mask();
  const int64_t a_stride = x.a.row_stride;
  const int64_t b_stride = x.b.row_stride;
  const float* a = x.a.data + i * a_stride;
  const float* b = x.b.data + j;
  const float* next = b;
  int64_t advance = 0;
  if (x.ahead != 0) {
    constexpr int64_t kColumns = kV * kWidth;
    next = x.b.data + x.ahead + x.k * (j + kColumns * i / x.m);
    advance = (kColumns * kR + x.m - 1) / x.m;
  }
  Vector sums[kR][kV];
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      sums[r][v] = zero();
    }
  }
  for (int64_t p = 0; p < x.k; ++p) {
    Vector right[kV];
#pragma GCC unroll 16
    for (int64_t v = 0; v < kV * kWidth; v += 16) {  // of each cache line
      __builtin_prefetch(next + v, 0, 2);
    }
    next += advance;
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      right[v] = kMasked && v + 1 == kV ? load(b + v * kWidth, mask) : load(b + v * kWidth);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      const Vector left = splat(a[r * a_stride]);
#pragma GCC unroll 16
      for (int v = 0; v < kV; ++v) {
        sums[r][v] = multiply_add(left, right[v], sums[r][v]);
      }
    }
    a += 1;
    b += b_stride;
  }
  // Copies: for all that the compiler knows, c may be part of x.
  const float factor = x.beta;
  const int64_t c_stride = x.c_row_stride;
  float* c = x.c + i * c_stride + j;
  const Vector alpha = splat(x.alpha);
  const Vector beta = splat(factor);
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kV; ++v) {
      float* const to = c + v * kWidth;
      const bool masked = kMasked && v + 1 == kV;
      Vector value = multiply(alpha, sums[r][v]);
      if (factor != 0) {
        value = multiply_add(beta, masked ? load(to, mask) : load(to), value);
      }
      masked ? store(to, value, mask) : store(to, value);
    }
    c += c_stride;
  }
}

using Tile = void (*)(const Product&, int64_t, int64_t, int64_t) noexcept;

// A tile for each number of rows up to the most, so that rows left over have one, too.
template <int kMost>
struct Tiles {
  Tile of[kMost > 0 ? kMost : 1];
};

template <int kV, bool kMasked, int... kR>
constexpr Tiles<sizeof...(kR)> tiles_of(std::integer_sequence<int, kR...>) {
  return {{&tile<kR + 1, kV, kMasked>...}};
}

constexpr auto kFour = tiles_of<4, false>(std::make_integer_sequence<int, kFourRows>());
constexpr auto kThree = tiles_of<3, false>(std::make_integer_sequence<int, kThreeRows>());
constexpr auto kTwo = tiles_of<2, false>(std::make_integer_sequence<int, kRows>());
constexpr auto kTwoMasked = tiles_of<2, true>(std::make_integer_sequence<int, kRows>());
constexpr auto kOne = tiles_of<1, false>(std::make_integer_sequence<int, kRows>());
constexpr auto kOneMasked = tiles_of<1, true>(std::make_integer_sequence<int, kRows>());

// A strip of c, all of its rows, by tiles of about the same height.
void strip(const Product& x, int64_t j, int64_t lanes, const Tile* of, int64_t most) noexcept {
  for (int64_t i = 0, left = (x.m + most - 1) / most; left > 0; --left) {
    const int64_t rows = (x.m - i + left - 1) / left;
    of[rows - 1](x, i, j, lanes);
    i += rows;
  }
}

void tiles(const Product& x) noexcept {
  int64_t j = 0;
  if (kThreeRows > 0 && x.n % (3 * kWidth) == 0) {
    for (; j < x.n; j += 3 * kWidth) {
      strip(x, j, kWidth, kThree.of, kThreeRows);
    }
    return;
  }
  const bool wide = x.m <= kFourRows || kVectors >= 4;
  for (; wide && x.n - j >= 4 * kWidth; j += 4 * kWidth) {
    strip(x, j, kWidth, kFour.of, kFourRows);
  }
  for (; x.n - j >= 2 * kWidth; j += 2 * kWidth) {
    strip(x, j, kWidth, kTwo.of, kRows);
  }
  const int64_t left = x.n - j;
  if (left > kWidth) {
    strip(x, j, left - kWidth, kTwoMasked.of, kRows);
  } else if (left == kWidth) {
    strip(x, j, kWidth, kOne.of, kRows);
  } else if (left > 0) {
    strip(x, j, left, kOneMasked.of, kRows);
  }
}

template <int kR, int kC>
void dot_tile(const Product& x, int64_t i, int64_t j) noexcept {
  const int64_t a_stride = x.a.row_stride;
  const int64_t b_stride = x.b.column_stride;
  const float* a = x.a.data + i * a_stride;
  const float* b = x.b.data + j * b_stride;
  Vector sums[kR][kC];
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kC; ++c) {
      sums[r][c] = zero();
    }
  }
  int64_t p = 0;
  for (; p + kWidth <= x.k; p += kWidth) {
    Vector left[kR];
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      left[r] = load(a + r * a_stride + p);
    }
#pragma GCC unroll 16
    for (int c = 0; c < kC; ++c) {
      const Vector right = load(b + c * b_stride + p);
#pragma GCC unroll 16
      for (int r = 0; r < kR; ++r) {
        sums[r][c] = multiply_add(left[r], right, sums[r][c]);
      }
    }
  }
  if (p < x.k) {
    const Mask mask = first_lanes(x.k - p);
    Vector left[kR];
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      left[r] = load(a + r * a_stride + p, mask);
    }
#pragma GCC unroll 16
    for (int c = 0; c < kC; ++c) {
      const Vector right = load(b + c * b_stride + p, mask);
#pragma GCC unroll 16
      for (int r = 0; r < kR; ++r) {
        sums[r][c] = multiply_add(left[r], right, sums[r][c]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kC; ++c) {
      float* const to = x.c + (i + r) * x.c_row_stride + (j + c) * x.c_column_stride;
      const float value = x.alpha * add_lanes(sums[r][c]);
      *to = x.beta == 0 ? value : value + x.beta * *to;
    }
  }
}

template <int kR, int kC>
void dot_rows(const Product& x, int64_t i, int64_t j = 0) noexcept {
  for (; j + kC <= x.n; j += kC) {
    dot_tile<kR, kC>(x, i, j);
  }
  if constexpr (kC > 1) {
    dot_rows<kR, kC / 2>(x, i, j);
  }
}

void dots(const Product& x) noexcept {
  if (x.m == 1) {
    return dot_rows<1, 8>(x, 0);
  }
  // A few columns of b at a time, so that they are read from memory once, however many rows a has.
  constexpr int64_t kStep = 2 * kDotColumns;
  Product part = x;
  for (int64_t j = 0; j < x.n; j += kStep) {
    part.n = std::min(kStep, x.n - j);
    part.b.data = x.b.data + j * x.b.column_stride;
    part.c = x.c + j * x.c_column_stride;
    int64_t i = 0;
    for (; i + kDotRows <= x.m; i += kDotRows) {
      dot_rows<kDotRows, kDotColumns>(part, i);
    }
    for (; i + 2 <= x.m; i += 2) {
      dot_rows<2, kDotColumns>(part, i);
    }
    if (i < x.m) {
      dot_rows<1, kDotColumns>(part, i);
    }
  }
}

// A single sum along k, as several that do not wait for each other.
void dot(const Product& x) noexcept {
  constexpr int kSums = 8;
  Vector sums[kSums];
#pragma GCC unroll 16
  for (int s = 0; s < kSums; ++s) {
    sums[s] = zero();
  }
  const float* const a = x.a.data;
  const float* const b = x.b.data;
  int64_t p = 0;
  for (; p + kSums * kWidth <= x.k; p += kSums * kWidth) {
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) {
      const int64_t at = p + s * kWidth;
      sums[s] = multiply_add(load(a + at), load(b + at), sums[s]);
    }
  }
  for (; p + kWidth <= x.k; p += kWidth) {
    sums[0] = multiply_add(load(a + p), load(b + p), sums[0]);
  }
  if (p < x.k) {
    const Mask mask = first_lanes(x.k - p);
    sums[1] = multiply_add(load(a + p, mask), load(b + p, mask), sums[1]);
  }
#pragma GCC unroll 16
  for (int s = 1; s < kSums; ++s) {
    sums[0] = add(sums[0], sums[s]);
  }
  const float value = x.alpha * add_lanes(sums[0]);
  *x.c = x.beta == 0 ? value : value + x.beta * *x.c;
}

// Adds kK rows of b, from row p on, to columns [j, end) of c.
template <int kR, int kK>
void sweep_rows(const Product& x, int64_t p, int64_t j, int64_t end) noexcept {
  Vector left[kR][kK];
#pragma GCC unroll 16
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 16
    for (int q = 0; q < kK; ++q) {
      left[r][q] = splat(x.alpha * x.a.data[r * x.a.row_stride + (p + q) * x.a.column_stride]);
    }
  }
  const float factor = p == 0 ? x.beta : 1;
  const Vector beta = splat(factor);
  const int64_t b_stride = x.b.row_stride;
  const float* const b = x.b.data + p * b_stride;
  for (; j + kWidth <= end; j += kWidth) {
    Vector sums[kR];
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      const float* const c = x.c + r * x.c_row_stride + j;
      sums[r] = factor == 0 ? zero() : multiply(beta, load(c));
    }
#pragma GCC unroll 16
    for (int q = 0; q < kK; ++q) {
      const Vector right = load(b + q * b_stride + j);
#pragma GCC unroll 16
      for (int r = 0; r < kR; ++r) {
        sums[r] = multiply_add(left[r][q], right, sums[r]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      store(x.c + r * x.c_row_stride + j, sums[r]);
    }
  }
  if (j < end) {
    const Mask mask = first_lanes(end - j);
#pragma GCC unroll 16
    for (int r = 0; r < kR; ++r) {
      float* const c = x.c + r * x.c_row_stride + j;
      Vector sum = factor == 0 ? zero() : multiply(beta, load(c, mask));
#pragma GCC unroll 16
      for (int q = 0; q < kK; ++q) {
        sum = multiply_add(left[r][q], load(b + q * b_stride + j, mask), sum);
      }
      store(c, sum, mask);
    }
  }
}

template <int kR, int kK>
void sweep_all(const Product& x) noexcept {
  constexpr int64_t kStep = 2048;  // columns of c that stay in the first cache
  for (int64_t j = 0; j < x.n; j += kStep) {
    const int64_t end = std::min(j + kStep, x.n);
    int64_t p = 0;
    for (; p + kK <= x.k; p += kK) {
      sweep_rows<kR, kK>(x, p, j, end);
    }
    for (; p < x.k; ++p) {
      sweep_rows<kR, 1>(x, p, j, end);
    }
  }
}

void sweep(const Product& x) noexcept {
  Product part = x;
  for (; part.m >= 2; part.m -= 2) {
    sweep_all<2, 4>(part);
    part.a.data += 2 * part.a.row_stride;
    part.c += 2 * part.c_row_stride;
  }
  if (part.m == 1) {
    sweep_all<1, 8>(part);
  }
}

void pack(
    int64_t rows,
    int64_t columns,
    const float* from,
    int64_t from_stride,
    float* to,
    int64_t depth) noexcept {
  constexpr int64_t kPanel = kVectors * kWidth;
  for (int64_t i = 0; i < rows; ++i, from += from_stride, to += kPanel) {
    const float* row = from;
    float* panel = to;
    int64_t left = columns;
    for (; left >= kPanel; left -= kPanel) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        store(panel + v * kWidth, load(row + v * kWidth));
      }
      row += kPanel;
      panel += depth * kPanel;
    }
    for (int64_t j = 0; j < left; ++j) {
      panel[j] = row[j];
    }
  }
}

void transpose(
    int64_t rows,
    int64_t columns,
    const float* from,
    int64_t from_stride,
    float* to,
    int64_t to_stride) noexcept {
  const int64_t whole_rows = rows - rows % kBlock;
  const int64_t whole_columns = columns - columns % kBlock;
  transpose_blocks(whole_rows, whole_columns, from, from_stride, to, to_stride);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) {
      to[j * to_stride + i] = from[i * from_stride + j];
    }
  }
}
