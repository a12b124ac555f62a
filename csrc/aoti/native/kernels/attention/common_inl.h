// What the kernels of every set of instructions have in common. The file that includes this has
// defined Vector, and the target, before. No templates of the standard library from here on: an
// instance made here would have instructions that other CPUs lack, and be shared.

namespace aoti::native::attention {

namespace {

using Register = Vector::Register;
using Element = Attention::Element;
using MaskKind = Attention::Mask;

constexpr int64_t kWidth = Vector::kWidth;
constexpr int64_t kLanes = kPanelVectors * kWidth;
constexpr float kInfinity = __builtin_inff();

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

// exp(x) of x <= 0, or NaN, within 2 units in the last place; 0 where exp(x) is subnormal.
inline Register exp_of(Register x) {
  const Register least = Vector::set(-87.33654F);            // ln(2^-126)
  const Register magic = Vector::set(12582912.0F + 127.0F);  // rounds; the low bits are n + 127
  const auto vanishes = Vector::less(x, least);
  x = Vector::max(least, x);
  const Register shifted = Vector::fma(x, Vector::set(1.44269504F), magic);
  const Register n = Vector::sub(shifted, magic);
  Register r = Vector::fma(n, Vector::set(-0.693359375F), x);
  r = Vector::fma(n, Vector::set(2.12194440e-4F), r);
  Register p = Vector::set(1.9875691500e-4F);  // Cephes' polynomial for expf
  p = Vector::fma(p, r, Vector::set(1.3981999507e-3F));
  p = Vector::fma(p, r, Vector::set(8.3334519073e-3F));
  p = Vector::fma(p, r, Vector::set(4.1665795894e-2F));
  p = Vector::fma(p, r, Vector::set(1.6666665459e-1F));
  p = Vector::fma(p, r, Vector::set(5.0000001201e-1F));
  p = Vector::fma(p, Vector::mul(r, r), Vector::add(r, Vector::set(1.0F)));
  return Vector::zero_where(vanishes, Vector::times_power(p, shifted));
}

inline float exp_of(float x) {
  alignas(64) float lanes[kWidth];
  Vector::store(lanes, exp_of(Vector::set(x)));
  return lanes[0];
}

typedef float Four __attribute__((vector_size(16)));

inline Four load_four(const float* data) {
  Four four;
  __builtin_memcpy(&four, data, sizeof four);
  return four;
}

inline void store_four(float* data, Four four) { __builtin_memcpy(data, &four, sizeof four); }

// to[column][row] = from[row][column] of 4 rows and 4 columns.
inline void transpose_four(const float* from, int64_t from_row, float* to, int64_t to_row) {
  const Four a = load_four(from);
  const Four b = load_four(from + from_row);
  const Four c = load_four(from + 2 * from_row);
  const Four d = load_four(from + 3 * from_row);
  const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store_four(to, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  store_four(to + to_row, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  store_four(to + 2 * to_row, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  store_four(to + 3 * to_row, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

// Up to 4 rows of `columns`, transposed; where there are fewer, the rest of the 4 are zeros.
inline void transpose_rows(
    const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to, int64_t to_row) {
  int64_t column = 0;
  if (rows == 4) {
    for (; column + 4 <= columns; column += 4) {
      transpose_four(from + column, from_row, to + column * to_row, to_row);
    }
  }
  for (; column < columns; ++column) {
    for (int64_t row = 0; row < 4; ++row) {
      to[column * to_row + row] = row < rows ? from[row * from_row + column] : 0.0F;
    }
  }
}

struct Rows {  // of float32, columns side by side
  const float* data;
  int64_t row;
};

inline Register widen(const uint16_t* data, Element element) {
  return element == Element::kBFloat16 ? Vector::widen_bfloat16(data) : Vector::widen_float16(data);
}

// A row of any element and stride as float32, side by side.
inline void widen_row(
    const void* from, Element element, int64_t column, int64_t columns, float* to) {
  if (element == Element::kFloat32) {
    const float* const floats = static_cast<const float*>(from);
    if (column == 1) {
      __builtin_memcpy(to, floats, static_cast<size_t>(columns) * sizeof(float));
      return;
    }
    for (int64_t i = 0; i < columns; ++i) {
      to[i] = floats[i * column];
    }
    return;
  }
  const uint16_t* const halves = static_cast<const uint16_t*>(from);
  int64_t i = 0;
  if (column == 1) {
    for (; i + kWidth <= columns; i += kWidth) {
      Vector::store(to + i, widen(halves + i, element));
    }
  }
  while (i < columns) {
    uint16_t some[kWidth] = {};
    const int64_t count = smaller(kWidth, columns - i);
    for (int64_t j = 0; j < count; ++j) {
      some[j] = halves[(i + j) * column];
    }
    Vector::store(to + i, widen(some, element), Vector::tail(count));
    i += count;
  }
}

// Element `index` of memory that holds `element`s.
inline const void* at(const void* data, Element element, int64_t index) {
  return static_cast<const char*>(data) + index * (element == Element::kFloat32 ? 4 : 2);
}

inline Rows rows_of(
    const void* data,
    Element element,
    const Strides4& strides,
    int64_t rows,
    int64_t columns,
    bool copy,
    float* copied) {
  if (!copy) {
    return {static_cast<const float*>(data), strides.row};
  }
  for (int64_t row = 0; row < rows; ++row) {
    const void* const from = at(data, element, row * strides.row);
    widen_row(from, element, strides.column, columns, copied + row * columns);
  }
  return {copied, columns};
}

inline Rows keys_of(const Plan& plan, const Task& task, int64_t first, int64_t rows, float* copy) {
  const Attention& all = plan.attention;
  const Strides4& strides = all.key_strides;
  const int64_t head = task.head / (all.shape.heads / all.shape.key_heads);
  const int64_t start = task.batch * strides.batch + head * strides.head + first * strides.row;
  const void* const data = at(all.key, all.element, start);
  return rows_of(data, all.element, strides, rows, all.shape.head_size, plan.copy_keys, copy);
}

inline Rows values_of(
    const Plan& plan, const Task& task, int64_t first, int64_t rows, float* copy) {
  const Attention& all = plan.attention;
  const Strides4& strides = all.value_strides;
  const int64_t head = task.head / (all.shape.heads / all.shape.key_heads);
  const int64_t start = task.batch * strides.batch + head * strides.head + first * strides.row;
  const void* const data = at(all.value, all.element, start);
  return rows_of(data, all.element, strides, rows, all.shape.value_size, plan.copy_values, copy);
}

inline void query_of(const Plan& plan, const Task& task, int64_t query, float* to) {
  const Attention& all = plan.attention;
  const Strides4& strides = all.query_strides;
  const int64_t start = task.batch * strides.batch + task.head * strides.head + query * strides.row;
  widen_row(
      at(all.query, all.element, start), all.element, strides.column, all.shape.head_size, to);
}

// What the mask adds to the scores of a query and `count` keys: where it is, or copied.
inline const float* mask_of(
    const Plan& plan, const Task& task, int64_t query, int64_t first, int64_t count, float* copy) {
  const Attention& all = plan.attention;
  const Strides4& strides = all.mask_strides;
  const int64_t start = task.batch * strides.batch + task.head * strides.head +
                        query * strides.row + first * strides.column;
  switch (all.mask_kind) {
    case MaskKind::kFloat: {
      const float* const data = static_cast<const float*>(all.mask) + start;
      if (strides.column == 1 || count == 1) {
        return data;
      }
      widen_row(data, Element::kFloat32, strides.column, count, copy);
      break;
    }
    case MaskKind::kBFloat16:
    case MaskKind::kFloat16: {
      const bool brain = all.mask_kind == MaskKind::kBFloat16;
      const uint16_t* const data = static_cast<const uint16_t*>(all.mask) + start;
      widen_row(data, brain ? Element::kBFloat16 : Element::kFloat16, strides.column, count, copy);
      break;
    }
    case MaskKind::kBool: {
      const uint8_t* const data = static_cast<const uint8_t*>(all.mask) + start;
      for (int64_t i = 0; i < count; ++i) {
        copy[i] = data[i * strides.column] != 0 ? 0.0F : -kInfinity;
      }
      break;
    }
    case MaskKind::kNone:
      break;
  }
  return copy;
}

// Divides a row, padded to whole vectors, by its sum and stores it; the log_sum_exp, too.
inline void finish(
    const Plan& plan, const Task& task, int64_t query, float* row, float maximum, float sum) {
  const Attention& all = plan.attention;
  const Strides4& strides = all.output_strides;
  const int64_t size = all.shape.value_size;
  const int64_t start = task.batch * strides.batch + task.head * strides.head + query * strides.row;
  const bool in_place = all.element == Element::kFloat32 && strides.column == 1;
  sum = sum == 0 ? 1.0F : sum;
  const Register factor = Vector::set(1.0F / sum);
  float* const floats = static_cast<float*>(all.output) + (in_place ? start : 0);
  for (int64_t i = 0; i < size; i += kWidth) {
    const Register scaled = Vector::mul(Vector::load(row + i), factor);
    const int64_t count = smaller(kWidth, size - i);
    if (in_place) {
      if (count == kWidth) {
        Vector::store(floats + i, scaled);
      } else {
        Vector::store(floats + i, scaled, Vector::tail(count));
      }
    } else if (all.element == Element::kFloat32) {
      Vector::store(row + i, scaled);
      for (int64_t j = i; j < i + count; ++j) {
        floats[start + j * strides.column] = row[j];
      }
    } else {
      uint16_t some[kWidth];
      if (all.element == Element::kBFloat16) {
        Vector::narrow_bfloat16(some, scaled);
      } else {
        Vector::narrow_float16(some, scaled);
      }
      uint16_t* const halves = static_cast<uint16_t*>(all.output) + start;
      for (int64_t j = 0; j < count; ++j) {
        halves[(i + j) * strides.column] = some[j];
      }
    }
  }
  if (all.log_sum_exp != nullptr) {
    const Strides3& at = all.log_sum_exp_strides;
    all.log_sum_exp[task.batch * at.batch + task.head * at.head + query * at.row] =
        (maximum == -kInfinity ? 0.0F : maximum) + __builtin_logf(sum);
  }
}

}  // namespace

}  // namespace aoti::native::attention
