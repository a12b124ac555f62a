// Products against a sum in double precision, for each set of instructions that this CPU has.

#include <aoti/native/kernels/gemm/blocks.h>
#include <aoti/native/kernels/gemm/gemm.h>
#include <aoti/native/kernels/gemm/gemm_kernels.h>

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "../cpp/expect.h"
#include "matrices.h"

namespace {

using aoti::native::GemmKernels;
using aoti::native::Isa;
using aoti::native::Product;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUntouched = 12345;
constexpr size_t kMost = size_t{16} << 20;

std::vector<Isa> all_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= aoti::native::isa()) {
      isas.push_back(isa);
    }
  }
  return isas;
}

const Guarded& memory_of(int operand) {
  static const Guarded memory[3] = {Guarded(kMost), Guarded(kMost), Guarded(kMost)};
  return memory[operand];
}

// The operands of a product, with what c held before.
struct Operands {
  Product x;
  std::vector<float> before;

  Operands(
      int64_t m,
      int64_t n,
      int64_t k,
      Layout a,
      Layout b,
      float alpha = 1,
      float beta = 0,
      int64_t padding = 0) {
    const int64_t stride = n + padding;
    const int64_t count = m == 0 || n == 0 ? 0 : (m - 1) * stride + n;
    float* const c = memory_of(2).place<float>(count, dice.below(2) == 0);
    x = {m, n, k, alpha, {}, {}, beta, c, stride, 1};
    x.a = make_matrix(memory_of(0), m, k, a);
    x.b = make_matrix(memory_of(1), k, n, b);
    before.assign(static_cast<size_t>(count), kUntouched);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        before[static_cast<size_t>(i * stride + j)] = beta == 0 ? kNaN : dice.number();
      }
    }
    reset();
  }

  void reset() const { std::copy(before.begin(), before.end(), x.c); }

  std::vector<float> result() const { return {x.c, x.c + before.size()}; }
};

bool element_is_right(const Operands& operands, int64_t i, int64_t j) {
  const Product& x = operands.x;
  double sum = 0;
  double size = 0;
  for (int64_t p = 0; p < x.k; ++p) {
    const double term = static_cast<double>(at(x.a, i, p)) * at(x.b, p, j);
    sum += term;
    size += std::fabs(term);
  }
  sum *= x.alpha;
  size *= std::fabs(x.alpha);
  const auto index = static_cast<size_t>(i * x.c_row_stride + j);
  if (x.beta != 0) {
    sum += static_cast<double>(x.beta) * operands.before[index];
    size += std::fabs(x.beta * operands.before[index]);
  }
  const float got = x.c[index];
  if (!std::isfinite(sum)) {
    return std::isnan(sum) ? std::isnan(got) : got == static_cast<float>(sum);
  }
  const double allowed = 4.0 * static_cast<double>(x.k + 1) * 0x1p-24 * size;
  return std::fabs(got - sum) <= allowed;
}

// Checks c, or so many elements of it, and that nothing between its rows was written.
void expect_product(const Operands& operands, Isa isa, const char* what, int64_t most = -1) {
  const Product& x = operands.x;
  bool right = true;
  if (most >= 0 && x.m * x.n > most) {
    for (int64_t check = 0; check < most; ++check) {
      right &= element_is_right(operands, dice.below(x.m), dice.below(x.n));
    }
    right &= element_is_right(operands, x.m - 1, x.n - 1);
  } else {
    for (int64_t i = 0; i < x.m; ++i) {
      for (int64_t j = 0; j < x.n; ++j) {
        right &= element_is_right(operands, i, j);
      }
    }
  }
  for (int64_t i = 0; x.n > 0 && i + 1 < x.m; ++i) {
    for (int64_t j = x.n; j < x.c_row_stride; ++j) {
      right &= x.c[i * x.c_row_stride + j] == kUntouched;
    }
  }
  if (!right) {
    char text[300];
    std::snprintf(
        text,
        sizeof text,
        "%s, %s: %lld x %lld x %lld, a %lld %lld, b %lld %lld, c %lld, alpha %g, beta %g",
        what,
        name_of(isa),
        static_cast<long long>(x.m),
        static_cast<long long>(x.n),
        static_cast<long long>(x.k),
        static_cast<long long>(x.a.row_stride),
        static_cast<long long>(x.a.column_stride),
        static_cast<long long>(x.b.row_stride),
        static_cast<long long>(x.b.column_stride),
        static_cast<long long>(x.c_row_stride),
        static_cast<double>(x.alpha),
        static_cast<double>(x.beta));
    expect::fail(__FILE__, __LINE__, text);
  }
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr float kFactors[][2] = {{1, 0}, {1, 1}, {-0.5f, 0}, {2, -1.5f}, {0, 1}};

// All sizes up to 20, with one combination of layouts and factors after the other.
void for_small_sizes(const std::function<void(int64_t, int64_t, int64_t, int)>& body) {
  int round = 0;
  for (int64_t m = 0; m <= 20; ++m) {
    for (int64_t n = 0; n <= 20; ++n) {
      for (int64_t k = 0; k <= 20; ++k) {
        body(m, n, k, round++);
      }
    }
  }
}

TEST(all_small_sizes_and_layouts) {
  for (const Isa isa : all_isas()) {
    const GemmKernels& kernels = gemm_kernels(isa);
    for_small_sizes([&](int64_t m, int64_t n, int64_t k, int) {
      for (int again = 0; again < 2; ++again) {
        const auto a = static_cast<Layout>(dice.below(kLayouts));
        const auto b = static_cast<Layout>(dice.below(kLayouts));
        const float* const factors = kFactors[dice.below(5)];
        const Operands operands(m, n, k, a, b, factors[0], factors[1], dice.below(3));
        gemm(kernels, operands.x);
        expect_product(operands, isa, "gemm");
      }
    });
  }
}

// Whatever gemm would choose for the size.
TEST(each_kernel_by_itself) {
  for (const Isa isa : all_isas()) {
    const GemmKernels& kernels = gemm_kernels(isa);
    for_small_sizes([&](int64_t m, int64_t n, int64_t k, int round) {
      const float* const factors = kFactors[round % 5];
      const Layout rows = round % 2 == 0 ? kRows : kPaddedRows;
      const Layout columns = round % 2 == 0 ? kColumns : kPaddedColumns;
      const Operands by_rows(m, n, k, rows, rows, factors[0], factors[1], round % 3);
      kernels.tiles(by_rows.x);
      expect_product(by_rows, isa, "tiles");
      by_rows.reset();
      unpacked(kernels, by_rows.x, 7);
      if (k > 0) {
        expect_product(by_rows, isa, "unpacked");
        by_rows.reset();
        kernels.sweep(by_rows.x);
        expect_product(by_rows, isa, "sweep");
      }
      const Operands by_columns(m, n, k, rows, columns, factors[0], factors[1], round % 3);
      kernels.dots(by_columns.x);
      expect_product(by_columns, isa, "dots");
      if (m == 1 && n == 1) {
        by_columns.reset();
        kernels.dot(by_columns.x);
        expect_product(by_columns, isa, "dot");
      }
      if (m * n * k > 0) {
        const auto a = static_cast<Layout>(dice.below(kLayouts));
        const auto b = static_cast<Layout>(dice.below(kLayouts));
        const Operands any(m, n, k, a, b, factors[0], factors[1], round % 3);
        packed(kernels, any.x);
        expect_product(any, isa, "packed");
      }
    });
  }
}

constexpr int64_t kLarge[][3] = {
    {1, 1000, 700},
    {2, 333, 1025},
    {3, 100, 400},
    {4, 77, 2000},
    {5, 640, 640},
    {16, 384, 385},
    {17, 500, 1000},
    {33, 129, 50},
    {1000, 1, 300},
    {700, 2, 333},
    {900, 3, 40},
    {64, 64, 64},
    {150, 31, 800},
    {300, 65, 390},
    {145, 1100, 9},
    {290, 1030, 70},
    {120, 120, 770}};

TEST(larger_sizes_are_the_same_on_any_number_of_threads) {
  for (const Isa isa : all_isas()) {
    const GemmKernels& kernels = gemm_kernels(isa);
    for (const auto& [m, n, k] : kLarge) {
      for (int layout = 0; layout < kLayouts; ++layout) {
        const auto a = static_cast<Layout>(layout < 2 ? 0 : dice.below(kLayouts));
        const float* const factors = kFactors[dice.below(5)];
        const Operands operands(
            m, n, k, a, static_cast<Layout>(layout), factors[0], factors[1], dice.below(3));
        omp_set_num_threads(1);
        gemm(kernels, operands.x);
        expect_product(operands, isa, "gemm", 100);
        const std::vector<float> one = operands.result();
        for (const int threads : {2, 3}) {
          omp_set_num_threads(threads);
          operands.reset();
          gemm(kernels, operands.x);
          EXPECT(same_bits(operands.result(), one));
        }
      }
    }
  }
}

TEST(what_is_not_finite_is_propagated) {
  for (const Isa isa : all_isas()) {
    const GemmKernels& kernels = gemm_kernels(isa);
    for (int round = 0; round < 2000; ++round) {
      const auto a = static_cast<Layout>(dice.below(4));
      const auto b = static_cast<Layout>(dice.below(4));
      const float beta = dice.below(2) == 0 ? 0.0f : 1.0f;
      const Operands operands(
          1 + dice.below(24), 1 + dice.below(40), 1 + dice.below(40), a, b, 1, beta);
      const Product& x = operands.x;
      for (int64_t count = dice.below(4); count >= 0; --count) {
        const float value = dice.below(3) == 0 ? kNaN : dice.below(2) == 0 ? kInfinity : -kInfinity;
        const bool left = dice.below(2) == 0;
        const aoti::native::Matrix& of = left ? x.a : x.b;
        const int64_t i = dice.below(left ? x.m : x.k);
        const int64_t j = dice.below(left ? x.k : x.n);
        const_cast<float*>(of.data)[i * of.row_stride + j * of.column_stride] = value;
      }
      gemm(kernels, x);
      expect_product(operands, isa, "not finite");
    }
  }
}

TEST(a_batch_is_as_many_products) {
  constexpr int64_t kBatches[][4] = {
      {1, 5, 6, 7},
      {3, 40, 50, 60},
      {12, 16, 64, 128},
      {13, 128, 64, 128},
      {3, 130, 128, 400},
      {9, 1, 300, 90}};
  for (const Isa isa : all_isas()) {
    const GemmKernels& kernels = gemm_kernels(isa);
    for (const auto& [batch, m, n, k] : kBatches) {
      for (const bool shared : {false, true}) {
        const Operands a(batch * m, 1, k, kRows, kRows);
        const std::vector<float> left(a.x.a.data, a.x.a.data + batch * m * k);
        const Operands b(1, batch * n, k, kRows, kColumns);
        const int64_t b_batch = shared ? 0 : n * k;
        std::vector<float> wanted(static_cast<size_t>(batch * m * n), 1);
        std::vector<float> got = wanted;
        Product x = {m, n, k, 1, {left.data(), k, 1}, {b.x.b.data, 1, k}, 2, nullptr, n, 1};
        for (int64_t index = 0; index < batch; ++index) {
          Product one = x;
          one.a.data += index * m * k;
          one.b.data += index * b_batch;
          one.c = wanted.data() + index * m * n;
          gemm(kernels, one);
        }
        for (const int threads : {1, 2, 3}) {
          omp_set_num_threads(threads);
          std::fill(got.begin(), got.end(), 1.0f);
          x.c = got.data();
          gemm_batched(kernels, batch, x, m * k, b_batch, m * n);
          EXPECT(same_bits(got, wanted));
        }
      }
    }
  }
}

TEST(what_is_called_by_others) {
  for (int round = 0; round < 500; ++round) {
    const float beta = round % 2 == 0 ? 0.0f : 1.0f;
    const Operands operands(
        1 + dice.below(100),
        1 + dice.below(64),
        dice.below(round % 8 < 2 ? 2500 : 300),  // deep ones are computed in parts
        kPaddedRows,
        round % 3 == 0 ? kRows : kPaddedRows,
        1,
        beta,
        2);
    const Product& x = operands.x;
    const auto [m, n, k, alpha, a, b, unused, c, c_stride, one, ahead] = x;
    aoti::native::brgemm(
        m, n, k, a.row_stride, b.row_stride, c_stride, beta == 1, a.data, b.data, c);
    expect_product(operands, aoti::native::isa(), "brgemm", 50);
    operands.reset();
    aoti::native::gemm(m, n, k, alpha, a, b, beta, c, c_stride);
    expect_product(operands, aoti::native::isa(), "gemm", 50);
    operands.reset();
    aoti::native::gemm_batched(1, m, n, k, alpha, a, 0, b, 0, beta, c, 0, c_stride);
    expect_product(operands, aoti::native::isa(), "gemm_batched", 50);
  }
}

TEST(a_product_on_a_thread_of_several) {
  const Operands operands(200, 300, 400, kRows, kColumns);
  const Product& x = operands.x;
  gemm(aoti::native::gemm_kernels(aoti::native::isa()), x);
  const std::vector<float> wanted = operands.result();
  std::vector<float> got[4];
#pragma omp parallel for num_threads(2)
  for (auto& c : got) {
    c.assign(wanted.size(), kNaN);
    aoti::native::gemm(x.m, x.n, x.k, 1, x.a, x.b, 0, c.data(), x.n);
  }
  for (const auto& c : got) {
    EXPECT(same_bits(c, wanted));
  }
}

TEST(what_is_empty) {
  float c[4] = {1, 2, kNaN, 4};
  aoti::native::gemm(0, 3, 2, 1, {nullptr, 2, 1}, {nullptr, 3, 1}, 0, nullptr, 3);
  aoti::native::gemm_batched(
      0, 2, 2, 2, 1, {nullptr, 2, 1}, 4, {nullptr, 2, 1}, 4, 0, nullptr, 4, 2);
  aoti::native::gemm(1, 2, 0, 1, {nullptr, 0, 1}, {nullptr, 2, 1}, 3, c, 2);
  EXPECT_EQ(c[0], 3);
  EXPECT_EQ(c[1], 6);
  aoti::native::gemm(2, 2, 0, 1, {nullptr, 0, 1}, {nullptr, 2, 1}, 0, c, 2);
  EXPECT(std::all_of(c, c + 4, [](float value) { return value == 0; }));
}

}  // namespace
