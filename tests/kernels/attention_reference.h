#pragma once

// Attention by its definition, in double precision, and operands for it of every form.

#include <aoti/native/kernels/attention/attention.h>
#include <aoti/native/kernels/attention/task.h>
#include <aoti/native/kernels/isa.h>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../cpp/expect.h"

namespace attention_reference {

using aoti::native::Attention;
using aoti::native::Isa;
using aoti::native::Strides4;
using Element = Attention::Element;
using Mask = Attention::Mask;

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kUntouched = 12345;

inline std::vector<Isa> all_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= aoti::native::isa()) {
      isas.push_back(isa);
    }
  }
  return isas;
}

inline void attend(Isa isa, const Attention& attention) {
  aoti::native::attention::attend_with(aoti::native::attention::backend_of(isa), attention);
}

// Memory that ends where a page begins that nothing may touch.
class Edge {
 public:
  explicit Edge(size_t most) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_ = (most + page - 1) / page * page;
    void* const base =
        mmap(nullptr, size_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(base != MAP_FAILED);
    base_ = static_cast<char*>(base);
    mprotect(base_ + size_, page, PROT_NONE);
    all_ = size_ + page;
  }
  ~Edge() { munmap(base_, all_); }
  Edge(const Edge&) = delete;
  Edge& operator=(const Edge&) = delete;

  void* last(int64_t bytes) const {
    REQUIRE(bytes >= 0 && static_cast<size_t>(bytes) <= size_);
    return base_ + size_ - bytes;
  }

 private:
  char* base_ = nullptr;
  size_t size_ = 0;
  size_t all_ = 0;
};

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}

  // A multiple of 1/32 in [-2, 2]: exact in every element.
  float number() { return static_cast<float>(static_cast<int64_t>(bits() % 129) - 64) / 32; }
  bool one_in(uint32_t many) { return bits() % many == 0; }
  uint32_t bits() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<uint32_t>(state_ >> 33);
  }

 private:
  uint64_t state_;
};

inline double widen(uint16_t bits, Element element) {
  if (element == Element::kBFloat16) {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  if (exponent == 31) {
    return fraction != 0 ? kNaN : sign * kInfinity;
  }
  return sign *
         (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

// The nearest number of that element, in bits; ties go to even ones.
inline uint16_t narrow(double x, Element element) {
  const int digits = element == Element::kBFloat16 ? 7 : 10;
  const int least = element == Element::kBFloat16 ? -126 : -14;
  if (std::isnan(x)) {
    return element == Element::kBFloat16 ? 0x7FC0 : 0x7E00;
  }
  const int sign = std::signbit(x) ? 0x8000 : 0;
  if (x == 0) {
    return static_cast<uint16_t>(sign);
  }
  const int infinity = element == Element::kBFloat16 ? 0x7F80 : 0x7C00;
  if (std::isinf(x)) {
    return static_cast<uint16_t>(sign | infinity);
  }
  const int exponent = std::max(std::ilogb(x), least);
  const int fraction =  // with the leading 1; a carry out of it comes out right
      static_cast<int>(std::nearbyint(std::ldexp(std::fabs(x), digits - exponent)));
  return static_cast<uint16_t>(
      sign | std::min(infinity, ((exponent - least) << digits) + fraction));
}

enum class Order { kHeads, kPositions, kColumns, kPadded, kShared };

inline Strides4 strides_of(Order order, int64_t heads, int64_t rows, int64_t columns) {
  switch (order) {
    case Order::kHeads:
      return {heads * rows * columns, rows * columns, columns, 1};
    case Order::kPositions:
      return {heads * rows * columns, columns, heads * columns, 1};
    case Order::kColumns:
      return {heads * rows * columns, rows * columns, 1, rows};
    case Order::kPadded:
      return {heads * rows * (columns + 3), rows * (columns + 3), columns + 3, 1};
    case Order::kShared:
      return {0, rows * columns, columns, 1};
  }
  return {};
}

inline int64_t extent(const Strides4& strides, const std::array<int64_t, 4>& sizes) {
  for (const int64_t size : sizes) {
    if (size == 0) {
      return 0;
    }
  }
  return 1 + (sizes[0] - 1) * strides.batch + (sizes[1] - 1) * strides.head +
         (sizes[2] - 1) * strides.row + (sizes[3] - 1) * strides.column;
}

// An operand, at the edge of its memory.
struct Operand {
  static constexpr size_t kMost = size_t{4} << 20;

  Edge edge{kMost};
  void* data = nullptr;
  Strides4 strides{};
  int64_t count = 0;
  Element element = Element::kFloat32;

  void place(const Strides4& with, const std::array<int64_t, 4>& sizes, Element of) {
    strides = with;
    element = of;
    count = extent(with, sizes);
    data = edge.last(count * (of == Element::kFloat32 ? 4 : 2));
  }
  void set(int64_t index, double x) {
    if (element == Element::kFloat32) {
      static_cast<float*>(data)[index] = static_cast<float>(x);
    } else {
      static_cast<uint16_t*>(data)[index] = narrow(x, element);
    }
  }
  double at(int64_t index) const {
    return element == Element::kFloat32 ? static_cast<const float*>(data)[index]
                                        : widen(static_cast<const uint16_t*>(data)[index], element);
  }
  int64_t index(int64_t batch, int64_t head, int64_t row, int64_t column) const {
    return batch * strides.batch + head * strides.head + row * strides.row +
           column * strides.column;
  }
  double at(int64_t batch, int64_t head, int64_t row, int64_t column) const {
    return at(index(batch, head, row, column));
  }
};

struct Case {
  int64_t batch = 1;
  int64_t heads = 2;
  int64_t key_heads = 2;
  int64_t queries = 1;
  int64_t keys = 1;
  int64_t head_size = 8;
  int64_t value_size = 8;
  Mask mask = Mask::kNone;
  enum class Masked { kKeys, kQueries, kAll, kTransposed } masked = Masked::kAll;
  bool causal = false;
  Order order = Order::kHeads;  // of query, key and value
  Order output_order = Order::kPositions;
  Element element = Element::kFloat32;
};

inline std::string name_of(const Case& c, Isa isa) {
  char text[200];
  std::snprintf(
      text,
      sizeof text,
      "%s: batch %d, heads %d/%d, %d queries, %d keys, sizes %d %d, mask %d %d%s, order %d %d, "
      "element %d",
      aoti::native::name_of(isa),
      int(c.batch),
      int(c.heads),
      int(c.key_heads),
      int(c.queries),
      int(c.keys),
      int(c.head_size),
      int(c.value_size),
      int(c.mask),
      int(c.masked),
      c.causal ? ", causal" : "",
      int(c.order),
      int(c.output_order),
      int(c.element));
  return text;
}

class Bench {  // what a case needs, kept from one to the next
 public:
  Attention attention;
  Operand query, key, value, mask, output, log_sum_exp;

  void prepare(const Case& c) {
    Random random(static_cast<uint64_t>(c.queries * 1000 + c.keys));
    const auto fill = [&](Operand& operand, int64_t heads, int64_t rows, int64_t columns) {
      operand.place(
          strides_of(c.order, heads, rows, columns), {c.batch, heads, rows, columns}, c.element);
      for (int64_t i = 0; i < operand.count; ++i) {
        operand.set(i, random.number());
      }
    };
    fill(query, c.heads, c.queries, c.head_size);
    fill(key, c.key_heads, c.keys, c.head_size);
    fill(value, c.key_heads, c.keys, c.value_size);
    output.place(
        strides_of(c.output_order, c.heads, c.queries, c.value_size),
        {c.batch, c.heads, c.queries, c.value_size},
        c.element);
    log_sum_exp.place(
        {c.queries * c.heads, 1, c.heads, 1}, {c.batch, c.heads, c.queries, 1}, Element::kFloat32);
    clear();

    attention = Attention{};
    attention.shape = {c.batch, c.heads, c.key_heads, c.queries, c.keys, c.head_size, c.value_size};
    attention.element = c.element;
    attention.query = query.data;
    attention.query_strides = query.strides;
    attention.key = key.data;
    attention.key_strides = key.strides;
    attention.value = value.data;
    attention.value_strides = value.strides;
    attention.mask_kind = c.mask;
    attention.causal = c.causal;
    attention.scale = 0.4375F;
    attention.output = output.data;
    attention.output_strides = output.strides;
    attention.log_sum_exp = static_cast<float*>(log_sum_exp.data);
    attention.log_sum_exp_strides = {c.queries * c.heads, 1, c.heads};
    if (c.mask != Mask::kNone) {
      lay_mask(c, random);
    }
  }

  void clear() {
    for (Operand* const operand : {&output, &log_sum_exp}) {
      for (int64_t i = 0; i < operand->count; ++i) {
        operand->set(i, kUntouched);
      }
    }
  }

  // What the mask adds to a score.
  double added(int64_t batch, int64_t head, int64_t row, int64_t column) const {
    if (attention.causal && column > row) {
      return -kInfinity;
    }
    const int64_t at = mask.index(batch, head, row, column);
    switch (attention.mask_kind) {
      case Mask::kNone:
        return 0;
      case Mask::kBool:
        return static_cast<const uint8_t*>(mask.data)[at] != 0 ? 0 : -kInfinity;
      default:
        return mask.at(at);
    }
  }

 private:
  void lay_mask(const Case& c, Random& random) {
    Strides4 strides{};
    switch (c.masked) {
      case Case::Masked::kKeys:
        strides = {c.keys, 0, 0, 1};
        break;
      case Case::Masked::kQueries:
        strides = {0, 0, 1, 0};
        break;
      case Case::Masked::kAll:
        strides = {0, c.queries * c.keys, c.keys, 1};
        break;
      case Case::Masked::kTransposed:
        strides = {c.queries * c.keys, 0, 1, c.queries};
        break;
    }
    const Element element = c.mask == Mask::kBFloat16  ? Element::kBFloat16
                            : c.mask == Mask::kFloat16 ? Element::kFloat16
                                                       : Element::kFloat32;
    mask.place(strides, {c.batch, c.heads, c.queries, c.keys}, element);
    const bool bytes = c.mask == Mask::kBool;
    if (bytes) {
      mask.data = mask.edge.last(mask.count);
    }
    for (int64_t i = 0; i < mask.count; ++i) {
      const bool hides = random.one_in(4) || (i / std::max<int64_t>(c.keys, 1)) % 5 == 1;
      if (bytes) {
        static_cast<uint8_t*>(mask.data)[i] = hides ? 0 : 255;
      } else {
        mask.set(i, hides ? -kInfinity : random.number());
      }
    }
    attention.mask = mask.data;
    attention.mask_strides = strides;
  }
};

struct Expected {
  std::vector<double> row;
  double log_sum_exp;
};

inline Expected expected(const Bench& bench, int64_t batch, int64_t head, int64_t query) {
  const auto& shape = bench.attention.shape;
  const int64_t key_head = head * shape.key_heads / shape.heads;
  std::vector<double> weights(static_cast<size_t>(shape.keys));
  double maximum = -kInfinity;
  for (int64_t k = 0; k < shape.keys; ++k) {
    double score = 0;
    for (int64_t i = 0; i < shape.head_size; ++i) {
      score += bench.query.at(batch, head, query, i) * bench.key.at(batch, key_head, k, i);
    }
    score = score * static_cast<double>(bench.attention.scale) + bench.added(batch, head, query, k);
    weights[static_cast<size_t>(k)] = score;
    maximum = std::max(maximum, score);
  }
  Expected result{std::vector<double>(static_cast<size_t>(shape.value_size)), 0};
  if (maximum == -kInfinity) {
    return result;
  }
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - maximum);
    sum += weight;
  }
  for (int64_t k = 0; k < shape.keys; ++k) {
    for (int64_t i = 0; i < shape.value_size; ++i) {
      result.row[static_cast<size_t>(i)] +=
          weights[static_cast<size_t>(k)] / sum * bench.value.at(batch, key_head, k, i);
    }
  }
  result.log_sum_exp = maximum + std::log(sum);
  return result;
}

}  // namespace attention_reference
