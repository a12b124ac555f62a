// Attention against its definition, for each set of instructions that this CPU has.

#include <aoti/native/kernels/attention/attention.h>

#include <omp.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../cpp/expect.h"
#include "attention_reference.h"

namespace {

using namespace attention_reference;
using Masked = Case::Masked;

Bench& bench() {
  static Bench the_bench;
  return the_bench;
}

// The largest error, in units of what rounding may do.
double compare(const Bench& b, const Case& c) {
  const double unit = c.element == Element::kFloat32    ? 0
                      : c.element == Element::kBFloat16 ? 1.0 / 256
                                                        : 1.0 / 2048;
  double worst = 0;
  for (int64_t batch = 0; batch < c.batch; ++batch) {
    for (int64_t head = 0; head < c.heads; ++head) {
      for (int64_t query = 0; query < c.queries; ++query) {
        const Expected wanted = expected(b, batch, head, query);
        for (int64_t i = 0; i < c.value_size; ++i) {
          const double exact = wanted.row[static_cast<size_t>(i)];
          const double error = std::fabs(b.output.at(batch, head, query, i) - exact);
          worst = std::fmax(worst, error / (2e-6 + unit * std::fabs(exact)));
          worst = std::isnan(error) ? kInfinity : worst;
        }
        const double sum = b.log_sum_exp.at(batch, head, query, 0);
        const double error = std::fabs(sum - wanted.log_sum_exp);
        worst = std::fmax(worst, error / (1e-6 * (1 + std::fabs(sum))));
        worst = std::isnan(error) ? kInfinity : worst;
      }
    }
  }
  return worst;
}

void check(const Case& c) {
  Bench& b = bench();
  b.prepare(c);
  for (const Isa isa : all_isas()) {
    b.clear();
    attend(isa, b.attention);
    const double worst = compare(b, c);
    if (!(worst <= 1)) {
      const std::string what = name_of(c, isa) + ": error " + std::to_string(worst);
      expect::fail(__FILE__, __LINE__, what);
    }
  }
}

// The output of one query of one head, where everything is float32.
struct Small {
  int64_t queries;
  int64_t keys;
  std::vector<float> query, key, value;  // of one column each
  std::vector<float> mask{};
  bool causal = false;
  std::vector<float> output{};
  std::vector<float> log_sum_exp{};

  void run(Isa isa) {
    output.assign(static_cast<size_t>(queries), kUntouched);
    log_sum_exp = output;
    Attention attention;
    attention.shape = {1, 1, 1, queries, keys, 1, 1};
    attention.query = query.data();
    attention.query_strides = {0, 0, 1, 1};
    attention.key = key.data();
    attention.key_strides = {0, 0, 1, 1};
    attention.value = value.data();
    attention.value_strides = {0, 0, 1, 1};
    attention.mask = mask.data();
    attention.mask_kind = mask.empty() ? Mask::kNone : Mask::kFloat;
    attention.mask_strides = {0, 0, mask.size() == query.size() * key.size() ? keys : 0, 1};
    attention.causal = causal;
    attention.output = output.data();
    attention.output_strides = {0, 0, 1, 1};
    attention.log_sum_exp = log_sum_exp.data();
    attention.log_sum_exp_strides = {0, 0, 1};
    attend(isa, attention);
  }
};

Small small(int64_t queries, int64_t keys) {
  return {
      queries,
      keys,
      std::vector<float>(static_cast<size_t>(queries), 1),
      std::vector<float>(static_cast<size_t>(keys), 1),
      std::vector<float>(static_cast<size_t>(keys), 1)};
}

constexpr int64_t kQueries[] = {1, 3, 5, 40};  // by rows; one panel that is not full; more

}  // namespace

TEST(small_sizes) {
  for (int64_t queries = 0; queries < 10; ++queries) {
    for (int64_t keys = 0; keys < 10; ++keys) {
      for (int64_t size = 0; size < 10; ++size) {
        Case c{.queries = queries, .keys = keys, .head_size = size, .value_size = 9 - size};
        c.causal = (queries + keys + size) % 3 == 1;
        c.mask = (queries + keys + size) % 3 == 2 ? Mask::kFloat : Mask::kNone;
        check(c);
      }
    }
  }
  check({.batch = 0});
  check({.heads = 0, .key_heads = 0});
}

TEST(every_remainder_of_a_tile) {
  for (int64_t size = 10; size < 70; ++size) {
    check({.heads = 1, .key_heads = 1, .queries = size, .keys = 70 - size, .value_size = size});
    check({.heads = 1, .key_heads = 1, .queries = 2, .keys = size, .head_size = size});
  }
}

TEST(sizes_of_models) {
  for (const int64_t size : {32, 64, 128}) {
    check({.queries = 16, .keys = 16, .head_size = size, .value_size = size});
    check({.heads = 1, .key_heads = 1, .queries = 70, .keys = 130, .head_size = size});
    check({.heads = 1, .key_heads = 1, .queries = 1, .keys = 300, .value_size = size});
  }
}

TEST(several_blocks_of_keys) {
  for (const int64_t queries : kQueries) {
    for (const int64_t keys : {512, 513, 1100, 2049}) {
      Case c{.heads = 1, .key_heads = 1, .queries = queries, .keys = keys, .value_size = 13};
      check(c);
      c.mask = Mask::kFloat;
      check(c);
    }
  }
  check({.heads = 1, .key_heads = 1, .queries = 600, .keys = 600, .causal = true});
}

TEST(heads_that_share_keys) {
  for (const int64_t queries : kQueries) {
    check({.batch = 2, .heads = 6, .key_heads = 2, .queries = queries, .keys = 11});
    check({.batch = 2, .heads = 4, .key_heads = 1, .queries = queries, .keys = 9});
  }
}

TEST(masks) {
  for (const Mask mask : {Mask::kFloat, Mask::kBFloat16, Mask::kFloat16, Mask::kBool}) {
    for (const Masked masked :
         {Masked::kKeys, Masked::kQueries, Masked::kAll, Masked::kTransposed}) {
      for (const int64_t queries : kQueries) {
        for (const int64_t keys : {1, 7, 150}) {
          check({.batch = 2, .queries = queries, .keys = keys, .mask = mask, .masked = masked});
        }
      }
    }
  }
}

TEST(causal_with_as_many_keys_or_others) {
  for (const int64_t queries : {1, 4, 6, 33, 100}) {
    for (const int64_t keys : {1, 5, 33, 100, 140}) {
      Case c{.queries = queries, .keys = keys, .causal = true};
      check(c);
      c.mask = Mask::kFloat;
      check(c);
      c.masked = Masked::kKeys;
      check(c);
    }
  }
}

TEST(strides) {
  for (const Order order :
       {Order::kHeads, Order::kPositions, Order::kColumns, Order::kPadded, Order::kShared}) {
    for (const Order output : {Order::kHeads, Order::kPositions, Order::kColumns}) {
      for (const int64_t queries : kQueries) {
        check(
            {.batch = 2,
             .queries = queries,
             .keys = 21,
             .head_size = 19,
             .value_size = 11,
             .order = order,
             .output_order = output});
      }
    }
  }
}

TEST(elements_of_16_bits) {
  for (const Element element : {Element::kBFloat16, Element::kFloat16}) {
    for (const Order order : {Order::kHeads, Order::kPositions, Order::kColumns}) {
      for (const int64_t queries : kQueries) {
        for (const int64_t keys : {3, 40, 1100}) {
          check(
              {.heads = 1,
               .key_heads = 1,
               .queries = queries,
               .keys = keys,
               .head_size = 21,
               .value_size = 18,
               .order = order,
               .output_order = order,
               .element = element});
        }
      }
    }
  }
}

TEST(nothing_but_the_output_is_written) {
  for (const int64_t queries : kQueries) {
    const Case c{.queries = queries, .keys = 5, .value_size = 7, .output_order = Order::kPadded};
    Bench& b = bench();
    b.prepare(c);
    for (const Isa isa : all_isas()) {
      b.clear();
      attend(isa, b.attention);
      for (int64_t i = 0; i < b.output.count; ++i) {
        EXPECT_EQ(b.output.at(i) == kUntouched, i % b.output.strides.row >= c.value_size);
      }
    }
  }
}

// Each number of 16 bits, and what lies in the middle of two, as the mean of two values.
TEST(rounding_to_16_bits) {
  constexpr int64_t kAll = 1 << 16;
  std::vector<uint16_t> values(2 * kAll);
  std::vector<uint16_t> output(kAll);
  for (const Element element : {Element::kBFloat16, Element::kFloat16}) {
    for (int64_t i = 0; i < kAll; ++i) {
      values[static_cast<size_t>(i)] = static_cast<uint16_t>(i);
      values[static_cast<size_t>(kAll + i)] = static_cast<uint16_t>(i + i % 2);
    }
    for (const Isa isa : all_isas()) {
      for (const int64_t keys : {1, 2}) {
        Attention attention;
        attention.shape = {1, 1, 1, 1, keys, 0, kAll};
        attention.element = element;
        attention.value = values.data();
        attention.value_strides = {0, 0, kAll, 1};
        attention.output = output.data();
        attention.output_strides = {0, 0, kAll, 1};
        attend(isa, attention);
        int wrong = 0;
        for (size_t i = 0; i < kAll; ++i) {
          const double first = widen(values[i], element);
          const double second = widen(values[kAll + i], element);
          const auto sum = static_cast<float>(first + second);  // infinite where the kernel's is
          const double wanted =
              keys == 1 ? first : widen(narrow(static_cast<double>(sum) / 2, element), element);
          const double got = widen(output[i], element);
          wrong += !(got == wanted || (std::isnan(got) && std::isnan(wanted)));
        }
        EXPECT_EQ(wrong, 0);
      }
    }
  }
}

TEST(the_exponential_is_exact_to_the_last_digits) {
  for (const Isa isa : all_isas()) {
    for (const int64_t queries : kQueries) {
      double worst = 0;
      for (int step = 0; step < 400; ++step) {
        const float x = -0.21803F * static_cast<float>(step);  // down to -87
        Small s = small(queries, 2);
        s.value = {1, 0};
        s.mask = {x, 0};
        s.run(isa);
        const double e = std::exp(static_cast<double>(x));
        worst = std::fmax(worst, std::fabs(s.output[0] / (e / (1 + e)) - 1));
      }
      EXPECT(worst < 4e-7);
      for (const float x : {-88.0F, -104.0F, -1e30F}) {
        Small s = small(queries, 2);
        s.value = {1, 0};
        s.mask = {x, 0};
        s.run(isa);
        EXPECT(s.output[0] >= 0 && s.output[0] < 1.2e-38F);
      }
    }
  }
}

TEST(queries_that_see_nothing) {
  for (const Isa isa : all_isas()) {
    for (const int64_t queries : kQueries) {
      for (const int64_t keys : {1, 9, 1100, 5000}) {
        Small s = small(queries, keys);
        s.mask.assign(static_cast<size_t>(keys), -kInfinity);
        s.run(isa);
        EXPECT_EQ(s.output.back(), 0.0F);
        EXPECT_EQ(s.log_sum_exp.back(), 0.0F);
        s.mask.back() = 0;  // only in the last block
        s.run(isa);
        EXPECT_EQ(s.output.back(), 1.0F);
        EXPECT_EQ(s.log_sum_exp.back(), 1.0F);
        s.mask.assign(static_cast<size_t>(keys), -std::numeric_limits<float>::max());
        s.run(isa);
        EXPECT(std::fabs(s.output.back() - 1) < 1e-5);
      }
      Small s = small(queries, 0);
      s.run(isa);
      EXPECT_EQ(s.output.back(), 0.0F);
      EXPECT_EQ(s.log_sum_exp.back(), 0.0F);
    }
  }
}

TEST(not_a_number) {
  for (const Isa isa : all_isas()) {
    for (const int64_t queries : kQueries) {
      const int64_t keys = queries + 20;
      Small s = small(queries, keys);
      s.query.back() = kNaN;
      s.run(isa);
      EXPECT(std::isnan(s.output.back()) && std::isnan(s.log_sum_exp.back()));
      EXPECT(queries == 1 || s.output[0] == 1);

      s = small(queries, keys);
      s.key.back() = kNaN;
      s.run(isa);
      EXPECT(std::isnan(s.output[0]) && std::isnan(s.output.back()));
      s.causal = true;  // nobody sees it
      s.run(isa);
      EXPECT(s.output[0] == 1 && s.output.back() == 1);
      s.causal = false;
      s.key.back() = kInfinity;
      s.run(isa);
      EXPECT(std::isnan(s.output[0]));
      s.key.back() = -kInfinity;
      s.run(isa);
      EXPECT(std::fabs(s.output[0] - 1) < 1e-6);

      s = small(queries, keys);
      s.mask.assign(static_cast<size_t>(keys), 0);
      s.mask.back() = kNaN;
      s.run(isa);
      EXPECT(std::isnan(s.output.back()) && std::isnan(s.log_sum_exp.back()));
      s.mask.back() = kInfinity;
      s.run(isa);
      EXPECT(std::isnan(s.output.back()) && std::isnan(s.log_sum_exp.back()));

      s = small(queries, keys);
      s.value.back() = kInfinity;
      s.run(isa);
      EXPECT_EQ(s.output.back(), kInfinity);
    }
  }
}

TEST(threads_make_no_difference) {
  const int before = omp_get_max_threads();
  const Case cases[] = {
      {.heads = 1, .key_heads = 1, .queries = 150, .keys = 600, .mask = Mask::kFloat},
      {.heads = 3, .key_heads = 1, .queries = 70, .keys = 600, .causal = true},
      {.batch = 2, .heads = 4, .key_heads = 4, .keys = 2500, .mask = Mask::kBool}};
  Bench& b = bench();
  for (const Case& c : cases) {
    b.prepare(c);
    for (const Isa isa : all_isas()) {
      std::vector<float> first;
      for (const int threads : {1, 2, 5}) {
        omp_set_num_threads(threads);
        b.clear();
        attend(isa, b.attention);
        const float* const output = static_cast<const float*>(b.output.data);
        if (first.empty()) {
          first.assign(output, output + b.output.count);
        }
        EXPECT(std::memcmp(output, first.data(), first.size() * sizeof(float)) == 0);
      }
    }
  }
  omp_set_num_threads(before);
}

TEST(in_a_parallel_region) {
  for (const Isa isa : all_isas()) {
#pragma omp parallel for num_threads(2)
    for (int i = 0; i < 8; ++i) {
      Small s = small(300, 300);
      s.run(isa);
      EXPECT(std::fabs(s.output.back() - 1) < 1e-6);
    }
  }
}
