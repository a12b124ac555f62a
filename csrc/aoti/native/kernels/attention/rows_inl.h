// Attention of few queries, as when a model decodes: the time goes into reading keys and values,
// each once. A score is a product of vectors; the output of a query stays in registers.

namespace aoti::native::attention {

namespace {

constexpr int kDots = Vector::kDots;              // keys at a time
constexpr int kRowVectors = Vector::kRowVectors;  // of the output at a time

// sums[i] = query * key i, for `Keys` keys; the rest of `sums` is zeros.
template <int Keys>
__attribute__((noinline)) void dots(
    const float* query, const float* key, int64_t key_row, int64_t size, float* sums) {
  constexpr int kGroup = 3;  // keys that share a pointer
  constexpr int kGroups = (Keys + kGroup - 1) / kGroup;
  Register products[kDots];
#pragma GCC unroll 16
  for (int k = 0; k < kDots; ++k) {
    products[k] = Vector::zero();
  }
  const float* keys[kGroups];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) {
    keys[g] = key + g * kGroup * key_row;
  }
  int64_t i = 0;
  for (; i + kWidth <= size; i += kWidth) {
    const Register numbers = Vector::load(query + i);
#pragma GCC unroll 16
    for (int k = 0; k < Keys; ++k) {
      const Register row = Vector::load(keys[k / kGroup] + k % kGroup * key_row + i);
      products[k] = Vector::fma(numbers, row, products[k]);
    }
  }
  if (i < size) {
    const Vector::Tail tail = Vector::tail(size - i);
    const Register numbers = Vector::load(query + i, tail);
#pragma GCC unroll 16
    for (int k = 0; k < Keys; ++k) {
      const Register row = Vector::load(keys[k / kGroup] + k % kGroup * key_row + i, tail);
      products[k] = Vector::fma(numbers, row, products[k]);
    }
  }
  Vector::store_sums(sums, products);
}

template <int Keys>
inline void dots_of(
    int64_t keys, const float* query, const float* key, int64_t key_row, int64_t size, float* to) {
  if constexpr (Keys > 1) {
    if (keys != Keys) {
      dots_of<Keys - 1>(keys, query, key, key_row, size, to);
      return;
    }
  }
  dots<Keys>(query, key, key_row, size, to);
}

struct RowTile {
  const float* weights;
  const float* value;
  int64_t value_row;
  int64_t keys;
  Vector::Tail tail;  // of the last vector, where the tile is ragged
  float* output;
};

// output += weights * values, for so many vectors of columns.
template <int Vectors, bool Ragged>
__attribute__((noinline)) void row_tile(const RowTile& tile) {
  // As many additions under way as it takes to hide how long one takes.
  constexpr int kWays = Vectors > 4 ? 1 : Vectors > 2 ? 2 : 4;
  float* const output = tile.output;
  Register sums[kWays][Vectors];
#pragma GCC unroll 16
  for (int v = 0; v < Vectors; ++v) {
    sums[0][v] = Vector::load(output + v * kWidth);
#pragma GCC unroll 16
    for (int w = 1; w < kWays; ++w) {
      sums[w][v] = Vector::zero();
    }
  }
  const float* value = tile.value;
  const int64_t value_row = tile.value_row;
  const Vector::Tail tail = tile.tail;
  int64_t k = 0;
  for (; k + kWays <= tile.keys; k += kWays) {
#pragma GCC unroll 16
    for (int w = 0; w < kWays; ++w) {
      const Register weight = Vector::set(tile.weights[k + w]);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        const float* const from = value + v * kWidth;
        const Register row =
            Ragged && v == Vectors - 1 ? Vector::load(from, tail) : Vector::load(from);
        sums[w][v] = Vector::fma(weight, row, sums[w][v]);
      }
      value += value_row;
    }
  }
  for (; k < tile.keys; ++k) {
    const Register weight = Vector::set(tile.weights[k]);
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) {
      const float* const from = value + v * kWidth;
      const Register row =
          Ragged && v == Vectors - 1 ? Vector::load(from, tail) : Vector::load(from);
      sums[0][v] = Vector::fma(weight, row, sums[0][v]);
    }
    value += value_row;
  }
#pragma GCC unroll 16
  for (int v = 0; v < Vectors; ++v) {
#pragma GCC unroll 16
    for (int w = 1; w < kWays; ++w) {
      sums[0][v] = Vector::add(sums[0][v], sums[w][v]);
    }
    Vector::store(output + v * kWidth, sums[0][v]);
  }
}

template <int Vectors>
inline void row_tile_of(int64_t vectors, bool ragged, const RowTile& tile) {
  if constexpr (Vectors > 1) {
    if (vectors != Vectors) {
      row_tile_of<Vectors - 1>(vectors, ragged, tile);
      return;
    }
  }
  ragged ? row_tile<Vectors, true>(tile) : row_tile<Vectors, false>(tile);
}

// scores = scores * scale + bias, up to whole vectors, where -inf fills up; returns the maximum.
inline float finish_scores(float* scores, int64_t keys, float scale, const float* bias) {
  const Register factor = Vector::set(scale);
  Register maximum = Vector::set(-kInfinity);
  for (int64_t k = 0; k < keys; k += kWidth) {
    const int64_t count = smaller(kWidth, keys - k);
    Register score = Vector::load(scores + k);
    if (bias == nullptr) {
      score = Vector::mul(score, factor);
    } else if (count == kWidth) {
      score = Vector::fma(score, factor, Vector::load(bias + k));
    } else {
      score = Vector::fma(score, factor, Vector::load(bias + k, Vector::tail(count)));
    }
    Vector::store(scores + k, score);
    if (count < kWidth) {
      for (int64_t i = keys; i < k + kWidth; ++i) {
        scores[i] = -kInfinity;
      }
      score = Vector::load(scores + k);
    }
    maximum = Vector::max(score, maximum);
  }
  alignas(64) float lanes[kWidth];
  Vector::store(lanes, maximum);
  float result = lanes[0];
  for (int64_t i = 1; i < kWidth; ++i) {
    result = lanes[i] > result ? lanes[i] : result;
  }
  return result;
}

// Makes weights of the scores; returns their sum.
inline float weigh_scores(float* scores, int64_t keys, float base) {
  const Register subtracted = Vector::set(base);
  Register sum = Vector::zero();
  for (int64_t k = 0; k < keys; k += kWidth) {
    const Register weight = exp_of(Vector::sub(Vector::load(scores + k), subtracted));
    Vector::store(scores + k, weight);
    sum = Vector::add(sum, weight);
  }
  alignas(64) float lanes[kWidth];
  Vector::store(lanes, sum);
  float result = lanes[0];
  for (int64_t i = 1; i < kWidth; ++i) {
    result += lanes[i];
  }
  return result;
}

// One query and a block of keys: `keys` of them from key `first` on.
inline void attend_row(
    const Plan& plan,
    const Task& task,
    int64_t q,
    int64_t first,
    int64_t keys,
    const Rows& key,
    const Rows& value,
    float* scratch) {
  const AttentionShape& shape = plan.attention.shape;
  const Layout& layout = plan.layout;
  const int64_t row = round_up(shape.value_size, kWidth);
  const float* const query = scratch + layout.query + q * round_up(shape.head_size, kWidth);
  float* const scores = scratch + layout.scores;
  float* const output = scratch + layout.output + q * row;
  float& maximum = scratch[layout.maximum + q];
  float& sum = scratch[layout.sum + q];

  for (int64_t k = 0; k < keys; k += kDots) {
    const float* const from = key.data + k * key.row;
    dots_of<kDots>(smaller(kDots, keys - k), query, from, key.row, shape.head_size, scores + k);
  }
  const float* bias = nullptr;
  if (plan.attention.mask_kind != MaskKind::kNone) {
    bias = mask_of(plan, task, task.first + q, first, keys, scratch + layout.bias);
  }
  const float highest = finish_scores(scores, keys, plan.attention.scale, bias);
  const float before = maximum;
  maximum = highest > before ? highest : before;
  const float base = maximum == -kInfinity ? 0.0F : maximum;
  if (first > 0) {
    const float factor = exp_of(before - base);
    const Register factors = Vector::set(factor);
    sum *= factor;
    for (int64_t i = 0; i < row; i += kWidth) {
      Vector::store(output + i, Vector::mul(Vector::load(output + i), factors));
    }
  }
  sum += weigh_scores(scores, keys, base);

  RowTile tile{};
  tile.weights = scores;
  tile.value_row = value.row;
  tile.keys = keys;
  for (int64_t column = 0; column < shape.value_size; column += kRowVectors * kWidth) {
    const int64_t columns = smaller(kRowVectors * kWidth, shape.value_size - column);
    const bool ragged = columns % kWidth != 0;
    tile.tail = Vector::tail(ragged ? columns % kWidth : kWidth);
    tile.value = value.data + column;
    tile.output = output + column;
    row_tile_of<kRowVectors>((columns + kWidth - 1) / kWidth, ragged, tile);
  }
}

inline void attend_rows(const Plan& plan, const Task& task, float* scratch) {
  const AttentionShape& shape = plan.attention.shape;
  const Layout& layout = plan.layout;
  const bool causal = plan.attention.causal;
  const int64_t row = round_up(shape.value_size, kWidth);
  for (int64_t q = 0; q < task.count; ++q) {
    float* const to = scratch + layout.query + q * round_up(shape.head_size, kWidth);
    query_of(plan, task, task.first + q, to);
    scratch[layout.maximum + q] = -kInfinity;
    scratch[layout.sum + q] = 0;
  }
  float* const output = scratch + layout.output;
  __builtin_memset(output, 0, static_cast<size_t>(task.count * row) * sizeof(float));

  const int64_t seen = causal ? smaller(shape.keys, task.first + task.count) : shape.keys;
  for (int64_t first = 0; first < seen; first += plan.key_block) {
    const int64_t keys = smaller(plan.key_block, seen - first);
    const Rows key = keys_of(plan, task, first, keys, scratch + layout.keys);
    const Rows value = values_of(plan, task, first, keys, scratch + layout.values);
    for (int64_t q = 0; q < task.count; ++q) {
      const int64_t own = causal ? smaller(keys, task.first + q + 1 - first) : keys;
      if (own > 0) {
        attend_row(plan, task, q, first, own, key, value, scratch);
      }
    }
  }
  for (int64_t q = 0; q < task.count; ++q) {
    finish(
        plan,
        task,
        task.first + q,
        output + q * row,
        scratch[layout.maximum + q],
        scratch[layout.sum + q]);
  }
}

void run(const Plan& plan, const Task& task, float* scratch) {
  if (plan.by_rows) {
    attend_rows(plan, task, scratch);
  } else {
    Panels(plan, task, scratch).run();
  }
}

}  // namespace

}  // namespace aoti::native::attention
