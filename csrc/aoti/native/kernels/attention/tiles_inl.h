// The inner loops of panels_inl.h: a few keys, or a few columns of values, and two vectors of
// queries, whose sums stay in registers. GCC 12 leaves arrays of sums in memory where a loop over
// them is not unrolled by a pragma.

namespace aoti::native::attention {

namespace {

constexpr int kTile = Vector::kTileRows;  // rows of a tile that has two vectors

struct ScoreTile {
  const float* key;
  int64_t key_row;
  const float* query;  // transposed
  int64_t head_size;
  float scale;
  const float* bias;  // for each key, or nothing
  bool add_to;        // the mask is in `scores`
  bool causal;        // some keys are not seen by all queries
  int64_t unseen;     // with causal: so many lanes do not see the first key
  float* scores;
  float* maximum;
};

template <int Keys, int Vectors>
__attribute__((noinline)) void score_tile(const ScoreTile& tile) {
  constexpr int kGroup = 3;  // keys that share a pointer: x86 multiplies an index by 1, 2, 4, 8
  constexpr int kGroups = (Keys + kGroup - 1) / kGroup;
  Register sums[Keys][Vectors];
#pragma GCC unroll 32
  for (int k = 0; k < Keys; ++k) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      sums[k][v] = Vector::zero();
    }
  }
  const int64_t key_row = tile.key_row;
  const float* keys[kGroups];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) {
    keys[g] = tile.key + g * kGroup * key_row;
  }
  const float* query = tile.query;
  const float* const end = query + tile.head_size * Vectors * kWidth;
  for (; query != end; query += Vectors * kWidth) {
    Register lanes[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      lanes[v] = Vector::load(query + v * kWidth);
    }
#pragma GCC unroll 32
    for (int k = 0; k < Keys; ++k) {
      const Register key = Vector::set(keys[k / kGroup][k % kGroup * key_row]);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        sums[k][v] = Vector::fma(key, lanes[v], sums[k][v]);
      }
    }
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) {
      ++keys[g];
    }
  }

  const Register scale = Vector::set(tile.scale);
  constexpr int64_t kRow = Vectors * kWidth;
  float* const scores = tile.scores;
  if (tile.add_to) {
#pragma GCC unroll 32
    for (int k = 0; k < Keys; ++k) {
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        const Register mask = Vector::load(scores + k * kRow + v * kWidth);
        sums[k][v] = Vector::fma(sums[k][v], scale, mask);
      }
    }
  } else if (tile.bias != nullptr) {
#pragma GCC unroll 32
    for (int k = 0; k < Keys; ++k) {
      const Register mask = Vector::set(tile.bias[k]);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        sums[k][v] = Vector::fma(sums[k][v], scale, mask);
      }
    }
  } else {
#pragma GCC unroll 32
    for (int k = 0; k < Keys; ++k) {
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        sums[k][v] = Vector::mul(sums[k][v], scale);
      }
    }
  }
  if (tile.causal) {
    const int64_t unseen = tile.unseen;
#pragma GCC unroll 32
    for (int k = 0; k < Keys; ++k) {
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        sums[k][v] = Vector::from_lane(sums[k][v], unseen + k - v * kWidth);
      }
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < Vectors; ++v) {
    Register maximum = Vector::load(tile.maximum + v * kWidth);
#pragma GCC unroll 32
    for (int k = 0; k < Keys; ++k) {
      Vector::store(scores + k * kRow + v * kWidth, sums[k][v]);
      maximum = Vector::max(sums[k][v], maximum);
    }
    Vector::store(tile.maximum + v * kWidth, maximum);
  }
}

template <int Keys, int Vectors>
inline void score_tile_of(int64_t keys, const ScoreTile& tile) {
  if constexpr (Keys > 1) {
    if (keys != Keys) {
      score_tile_of<Keys - 1, Vectors>(keys, tile);
      return;
    }
  }
  score_tile<Keys, Vectors>(tile);
}

struct ValueTile {
  const float* weights;  // transposed
  int64_t weights_row;
  const float* value;
  int64_t value_row;
  int64_t keys;
  bool add_to;
  Vector::Tail tail;  // of the last vector, where the tile is ragged
  float* output;
  int64_t output_row;
};

template <int Queries, int Vectors, bool Ragged>
__attribute__((noinline)) void value_tile(const ValueTile& tile) {
  float* const output = tile.output;
  const int64_t output_row = tile.output_row;
  Register sums[Queries][Vectors];
#pragma GCC unroll 32
  for (int q = 0; q < Queries; ++q) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      sums[q][v] =
          tile.add_to ? Vector::load(output + q * output_row + v * kWidth) : Vector::zero();
    }
  }
  const float* weights = tile.weights;
  const float* value = tile.value;
  const int64_t weights_row = tile.weights_row;
  const int64_t value_row = tile.value_row;
  const Vector::Tail tail = tile.tail;
  for (int64_t k = 0; k < tile.keys; ++k) {
    Register row[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      row[v] = Ragged && v == Vectors - 1 ? Vector::load(value + v * kWidth, tail)
                                          : Vector::load(value + v * kWidth);
    }
#pragma GCC unroll 32
    for (int q = 0; q < Queries; ++q) {
      const Register weight = Vector::set(weights[q]);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        sums[q][v] = Vector::fma(weight, row[v], sums[q][v]);
      }
    }
    weights += weights_row;
    value += value_row;
  }
#pragma GCC unroll 32
  for (int q = 0; q < Queries; ++q) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      Vector::store(output + q * output_row + v * kWidth, sums[q][v]);
    }
  }
}

template <int Queries, int Vectors, bool Ragged>
inline void value_tile_of(int64_t queries, const ValueTile& tile) {
  if constexpr (Queries > 1) {
    if (queries != Queries) {
      value_tile_of<Queries - 1, Vectors, Ragged>(queries, tile);
      return;
    }
  }
  value_tile<Queries, Vectors, Ragged>(tile);
}

}  // namespace

}  // namespace aoti::native::attention
