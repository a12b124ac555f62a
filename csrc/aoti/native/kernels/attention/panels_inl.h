// Attention of many queries. The scores of a panel of queries are kept transposed, a row for each
// key: their product takes the keys as they are, one number at a time, and the softmax has its
// maxima and sums in the lanes of vectors. Only the queries are transposed, once.

#include <aoti/native/kernels/attention/tiles_inl.h>

namespace aoti::native::attention {

namespace {

constexpr int64_t kValueKeys = 128;   // keys whose values stay in the first cache
constexpr int64_t kPackQueries = 32;  // from here on, values are copied first
constexpr int64_t kChunk = 64;        // columns that are copied to be transposed

struct Panel {
  int64_t first;    // in the task
  int64_t queries;  // 1 to kLanes
  int64_t lanes;    // one vector or two
  int64_t keys;     // of the current block that any of its queries sees
  float* query;     // (head_size, lanes)
  float* scores;    // (key_block, lanes)
  float* maximum;   // (lanes), as the next two
  float* sum;
  float* factor;
};

class Panels {
 public:
  Panels(const Plan& plan, const Task& task, float* scratch)
      : plan_(plan),
        shape_(plan.attention.shape),
        task_(task),
        scratch_(scratch),
        output_(scratch + plan.layout.output),
        output_row_(round_up(shape_.value_size, kWidth)),
        count_((task.count + kLanes - 1) / kLanes) {}

  void run() {
    const bool causal = plan_.attention.causal;
    const int64_t keys = causal ? smaller(shape_.keys, task_.first + task_.count) : shape_.keys;
    for (int64_t p = 0; p < count_; ++p) {
      start(p);
    }
    if (keys == 0) {
      __builtin_memset(output_, 0, static_cast<size_t>(task_.count * output_row_) * sizeof(float));
    }
    for (int64_t first = 0; first < keys; first += plan_.key_block) {
      block(first, smaller(plan_.key_block, keys - first));
    }
    for (int64_t p = 0; p < count_; ++p) {
      const Panel panel = panel_at(p);
      for (int64_t q = 0; q < panel.queries; ++q) {
        const int64_t query = panel.first + q;
        finish(
            plan_,
            task_,
            task_.first + query,
            output_ + query * output_row_,
            panel.maximum[q],
            panel.sum[q]);
      }
    }
  }

 private:
  Panel panel_at(int64_t p) const {
    const Layout& layout = plan_.layout;
    Panel panel{};
    panel.first = p * kLanes;
    panel.queries = smaller(kLanes, task_.count - panel.first);
    panel.lanes = panel.queries <= kWidth ? kWidth : kLanes;
    panel.query = scratch_ + layout.query + panel.first * shape_.head_size;
    panel.scores = scratch_ + layout.scores + panel.first * plan_.key_block;
    panel.maximum = scratch_ + layout.maximum + panel.first;
    panel.sum = scratch_ + layout.sum + panel.first;
    panel.factor = scratch_ + layout.factor + panel.first;
    return panel;
  }

  // The panel in the block of keys from `first` on.
  Panel panel_at(int64_t p, int64_t first, int64_t keys) const {
    Panel panel = panel_at(p);
    panel.keys = keys;
    if (plan_.attention.causal) {
      const int64_t seen = task_.first + panel.first + panel.queries - first;
      panel.keys = larger(0, smaller(keys, seen));
    }
    return panel;
  }

  void start(int64_t p) {
    const Panel panel = panel_at(p);
    const Attention& all = plan_.attention;
    const Strides4& strides = all.query_strides;
    const int64_t size = shape_.head_size;
    const int64_t start = task_.batch * strides.batch + task_.head * strides.head;
    for (int64_t lane = 0; lane < panel.lanes; lane += 4) {
      const int64_t rows = larger(0, smaller(4, panel.queries - lane));
      const int64_t row = start + (task_.first + panel.first + lane) * strides.row;
      float* const to = panel.query + lane;
      if (all.element == Element::kFloat32 && strides.column == 1) {
        const float* const from = static_cast<const float*>(all.query) + (rows > 0 ? row : 0);
        transpose_rows(from, strides.row, rows, size, to, panel.lanes);
        continue;
      }
      for (int64_t column = 0; column < size; column += kChunk) {
        const int64_t columns = smaller(kChunk, size - column);
        alignas(64) float copy[4 * kChunk];
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t index = row + r * strides.row + column * strides.column;
          widen_row(
              at(all.query, all.element, index),
              all.element,
              strides.column,
              columns,
              copy + r * kChunk);
        }
        transpose_rows(copy, kChunk, rows, columns, to + column * panel.lanes, panel.lanes);
      }
    }
    for (int64_t lane = 0; lane < panel.lanes; ++lane) {
      panel.maximum[lane] = -kInfinity;
      panel.sum[lane] = 0;
    }
  }

  void block(int64_t first, int64_t keys) {
    const Attention& all = plan_.attention;
    const Layout& layout = plan_.layout;
    const Rows key = keys_of(plan_, task_, first, keys, scratch_ + layout.keys);
    const Rows value = values_of(plan_, task_, first, keys, scratch_ + layout.values);
    const bool masked = all.mask_kind != MaskKind::kNone;
    const bool for_each_query = masked && all.mask_strides.row != 0 && shape_.queries > 1;
    const float* bias = nullptr;
    if (for_each_query) {
      for (int64_t p = 0; p < count_; ++p) {
        lay_mask(panel_at(p, first, keys), first);
      }
    } else if (masked) {
      bias = mask_of(plan_, task_, 0, first, keys, scratch_ + layout.bias);
    }

    for (int64_t p = 0; p < count_; ++p) {
      const Panel panel = panel_at(p);
      for (int64_t lane = 0; lane < panel.lanes; ++lane) {
        panel.factor[lane] = -kInfinity;  // the maximum of the block, at first
      }
    }
    // The keys of a strip stay in the first cache for all panels.
    constexpr int64_t kStrip = 2 * kTile;
    for (int64_t k = 0; k < keys; k += kStrip) {
      prefetch(key, k + kStrip, smaller(kStrip, keys - k - kStrip));
      for (int64_t p = 0; p < count_; ++p) {
        const Panel panel = panel_at(p, first, keys);
        if (k < panel.keys) {
          score(panel, key, first, k, smaller(kStrip, panel.keys - k), bias, for_each_query);
        }
      }
    }
    for (int64_t p = 0; p < count_; ++p) {
      weigh(panel_at(p, first, keys), first > 0);
    }
    const bool copy = task_.count >= kPackQueries;
    float* const packed = scratch_ + layout.packed;
    for (int64_t k = 0; k < keys; k += kValueKeys) {
      const int64_t count = smaller(kValueKeys, keys - k);
      const float* const from = value.data + k * value.row;
      if (copy) {
        pack({from, value.row}, count, packed);
      }
      for (int64_t column = 0; column < shape_.value_size; column += kLanes) {
        if (copy) {
          const int64_t row = round_up(smaller(kLanes, shape_.value_size - column), kWidth);
          add_values({packed + column * count, row}, false, first, k, keys, column);
        } else {
          add_values({from + column, value.row}, true, first, k, keys, column);
        }
      }
    }
  }

  void prefetch(const Rows& key, int64_t first, int64_t rows) const {
    for (int64_t row = 0; row < rows; ++row) {
      const float* const data = key.data + (first + row) * key.row;
      for (int64_t i = 0; i < shape_.head_size; i += 16) {
        __builtin_prefetch(data + i);
      }
    }
  }

  // Values side by side, two vectors of columns after the other. Rows far apart, as those of one
  // head among many are, fall into few sets of the caches.
  void pack(const Rows& value, int64_t keys, float* packed) const {
    const int64_t size = shape_.value_size;
    const int64_t full = size / kLanes * kLanes;
    const int64_t row = round_up(size - full, kWidth);
    for (int64_t k = 0; k < keys; ++k) {
      const float* const from = value.data + k * value.row;
      for (int64_t column = 0; column < full; column += kLanes) {
        float* const to = packed + column * keys + k * kLanes;
        Vector::store(to, Vector::load(from + column));
        Vector::store(to + kWidth, Vector::load(from + column + kWidth));
      }
      float* const to = packed + full * keys + k * row;
      for (int64_t i = 0; full + i < size; i += kWidth) {
        const Vector::Tail tail = Vector::tail(smaller(kWidth, size - full - i));
        Vector::store(to + i, Vector::load(from + full + i, tail));
      }
    }
  }

  // What the mask adds, transposed, to where the scores will be.
  void lay_mask(const Panel& panel, int64_t first) const {
    for (int64_t key = 0; key < panel.keys; key += kChunk) {
      const int64_t keys = smaller(kChunk, panel.keys - key);
      for (int64_t lane = 0; lane < panel.lanes; lane += 4) {
        const int64_t rows = larger(0, smaller(4, panel.queries - lane));
        alignas(64) float copy[4 * kChunk];
        const float* from = copy;
        int64_t from_row = kChunk;
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t query = task_.first + panel.first + lane + r;
          const float* const row =
              mask_of(plan_, task_, query, first + key, keys, copy + r * kChunk);
          if (r == 0 && row != copy) {
            from = row;
            from_row = plan_.attention.mask_strides.row;
          }
        }
        transpose_rows(
            from, from_row, rows, keys, panel.scores + key * panel.lanes + lane, panel.lanes);
      }
    }
  }

  // Scores of `keys` keys, at most a strip, from key `k` of the block on.
  void score(
      const Panel& panel,
      const Rows& key,
      int64_t first,
      int64_t k,
      int64_t keys,
      const float* bias,
      bool add_to) const {
    const int64_t most = panel.lanes == kLanes ? kTile : 2 * kTile;
    ScoreTile tile{};
    tile.key_row = key.row;
    tile.query = panel.query;
    tile.head_size = shape_.head_size;
    tile.scale = plan_.attention.scale;
    tile.add_to = add_to;
    tile.maximum = panel.factor;
    for (int64_t tiles = (keys + most - 1) / most; tiles > 0; --tiles) {
      const int64_t count = (keys + tiles - 1) / tiles;
      tile.key = key.data + k * key.row;
      tile.bias = bias == nullptr ? nullptr : bias + k;
      tile.unseen = first + k - (task_.first + panel.first);
      tile.causal = plan_.attention.causal && tile.unseen + count > 1;
      tile.scores = panel.scores + k * panel.lanes;
      if (panel.lanes == kLanes) {
        score_tile_of<kTile, 2>(count, tile);
      } else {
        score_tile_of<2 * kTile, 1>(count, tile);
      }
      k += count;
      keys -= count;
    }
  }

  // Makes weights of the scores; updates the maxima and sums, and what there is of the output.
  void weigh(const Panel& panel, bool update) const {
    for (int64_t lane = 0; lane < panel.lanes; lane += kWidth) {
      const Register before = Vector::load(panel.maximum + lane);
      const Register maximum = Vector::max(Vector::load(panel.factor + lane), before);
      const Register base = Vector::zero_for_minus_infinity(maximum);
      const Register factor = exp_of(Vector::sub(before, base));
      Register even = Vector::mul(Vector::load(panel.sum + lane), factor);
      Register odd = Vector::zero();
      float* score = panel.scores + lane;
      int64_t k = 0;
      for (; k + 2 <= panel.keys; k += 2) {
        const Register one = exp_of(Vector::sub(Vector::load(score), base));
        const Register two = exp_of(Vector::sub(Vector::load(score + panel.lanes), base));
        Vector::store(score, one);
        Vector::store(score + panel.lanes, two);
        even = Vector::add(even, one);
        odd = Vector::add(odd, two);
        score += 2 * panel.lanes;
      }
      if (k < panel.keys) {
        const Register one = exp_of(Vector::sub(Vector::load(score), base));
        Vector::store(score, one);
        even = Vector::add(even, one);
      }
      Vector::store(panel.maximum + lane, maximum);
      Vector::store(panel.sum + lane, Vector::add(even, odd));
      Vector::store(panel.factor + lane, factor);
    }
    for (int64_t q = 0; update && q < panel.queries; ++q) {
      const Register factor = Vector::set(panel.factor[q]);
      float* const row = output_ + (panel.first + q) * output_row_;
      for (int64_t column = 0; column < output_row_; column += kWidth) {
        Vector::store(row + column, Vector::mul(Vector::load(row + column), factor));
      }
    }
  }

  // Adds the weighted values of a few keys, from key `k` of the block on, to two vectors of
  // columns.
  void add_values(
      const Rows& value, bool in_place, int64_t first, int64_t k, int64_t keys, int64_t column)
      const {
    const int64_t columns = smaller(kLanes, shape_.value_size - column);
    ValueTile tile{};
    tile.value = value.data;
    tile.value_row = value.row;
    tile.add_to = first + k > 0;
    tile.tail = Vector::tail((columns - 1) % kWidth + 1);
    const bool ragged = in_place && columns % kWidth != 0;
    for (int64_t p = 0; p < count_; ++p) {
      const Panel panel = panel_at(p, first, keys);
      if (k < panel.keys) {
        tile.keys = smaller(kValueKeys, panel.keys - k);
        add_values(panel, tile, k, column, columns > kWidth, ragged);
      }
    }
  }

  void add_values(
      const Panel& panel, ValueTile tile, int64_t k, int64_t column, bool two, bool ragged) const {
    tile.weights_row = panel.lanes;
    tile.output_row = output_row_;
    int64_t query = 0;
    for (int64_t tiles = (panel.queries + kTile - 1) / kTile; tiles > 0; --tiles) {
      const int64_t count = (panel.queries - query + tiles - 1) / tiles;
      tile.weights = panel.scores + k * panel.lanes + query;
      tile.output = output_ + (panel.first + query) * output_row_ + column;
      if (two) {
        ragged ? value_tile_of<kTile, 2, true>(count, tile)
               : value_tile_of<kTile, 2, false>(count, tile);
      } else {
        ragged ? value_tile_of<kTile, 1, true>(count, tile)
               : value_tile_of<kTile, 1, false>(count, tile);
      }
      query += count;
    }
  }

  const Plan& plan_;
  const AttentionShape& shape_;
  const Task& task_;
  float* const scratch_;
  float* const output_;
  const int64_t output_row_;
  const int64_t count_;
};

}  // namespace

}  // namespace aoti::native::attention
