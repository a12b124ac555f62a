// Products with bytes and bfloat16 against plain sums, for each set of instructions that this CPU
// has. Floats are small whole numbers, so that sums are exact in any order.

#include <aoti/native/kernels/narrow/narrow.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "../cpp/expect.h"
#include "matrices.h"

namespace {

using aoti::native::ByteProduct;
using aoti::native::HalfProduct;
using aoti::native::Isa;
using aoti::native::NarrowKernels;
using aoti::native::NarrowProduct;
using aoti::native::WideProduct;

template <class Product>
using Kernel = void (*)(const Product&) noexcept;

Kernel<ByteProduct> kernel_of(const NarrowKernels& kernels, ByteProduct) { return kernels.bytes; }
Kernel<WideProduct> kernel_of(const NarrowKernels& kernels, WideProduct) { return kernels.wide; }
Kernel<HalfProduct> kernel_of(const NarrowKernels& kernels, HalfProduct) { return kernels.halves; }

// All that this CPU can run, those of lesser CPUs included.
template <class Product>
std::vector<Kernel<Product>> kernels() {
  std::vector<Kernel<Product>> found;
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= aoti::native::isa()) {
      found.push_back(kernel_of(aoti::native::narrow_kernels(isa), Product()));
    }
  }
#if defined(__x86_64__)
  if constexpr (std::is_same_v<Product, HalfProduct>) {
    if (aoti::native::isa() == Isa::kAvx512) {
      found.push_back(aoti::native::multiply_halves_avx512);
    }
  }
#endif
  std::erase(found, nullptr);
  return found;
}

enum Values { kAny, kLargest };

void fill(uint8_t& to, Values values) {
  to = static_cast<uint8_t>(values == kLargest ? 255 : dice.below(256));
}
void fill(int8_t& to, Values values) {
  to = static_cast<int8_t>(values == kLargest ? -128 : dice.below(256) - 128);
}
void fill(float& to, Values) { to = static_cast<float>(dice.below(9) - 4); }
void fill(uint16_t& to, Values) {
  const auto number = static_cast<float>(dice.below(9) - 4);
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  to = static_cast<uint16_t>(bits >> 16);
}

int64_t number(uint8_t value) { return value; }
int64_t number(int8_t value) { return value; }
int64_t number(float value) { return static_cast<int64_t>(value); }
int64_t number(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return static_cast<int64_t>(wide);
}

template <class Element>
Element* make(int operand, int64_t count, Values values) {
  static const Guarded memory[3] = {
      Guarded(size_t{4} << 20), Guarded(size_t{4} << 20), Guarded(size_t{4} << 20)};
  Element* const data = memory[operand].place<Element>(count, dice.below(2) == 0);
  std::for_each(data, data + count, [&](Element& element) { fill(element, values); });
  return data;
}

template <class Left, class Right, class Sum>
void expect_product(
    NarrowProduct<Left, Right, Sum> x, int64_t step, int64_t padding, Values values) {
  constexpr Sum kUntouched = 12345;
  x.a_stride = x.k + padding;
  x.c_stride = x.n + padding;
  const int64_t c_count = x.m == 0 ? 0 : (x.m - 1) * x.c_stride + x.n;
  x.a = make<Left>(0, x.m == 0 ? 0 : (x.m - 1) * x.a_stride + x.k, values);
  x.b = make<Right>(1, x.k * x.n, values);
  std::vector<Sum> expected(static_cast<size_t>(c_count), kUntouched);
  for (int64_t i = 0; i < x.m; ++i) {
    for (int64_t j = 0; j < x.n; ++j) {
      int64_t sum = 0;
      for (int64_t p = 0; p < x.k; ++p) {
        sum +=
            number(x.a[i * x.a_stride + p]) * number(x.b[(p / step * x.n + j) * step + p % step]);
      }
      expected[static_cast<size_t>(i * x.c_stride + j)] = static_cast<Sum>(sum);
    }
  }
  for (const auto kernel : kernels<decltype(x)>()) {
    static const Guarded memory(size_t{4} << 20);
    x.c = memory.place<Sum>(c_count, dice.below(2) == 0);
    std::fill(x.c, x.c + c_count, kUntouched);
    kernel(x);
    EXPECT(std::equal(expected.begin(), expected.end(), x.c));
  }
}

void expect_products(
    int64_t m, int64_t n, int64_t steps, int64_t padding = 0, Values values = kAny) {
  expect_product(ByteProduct{m, n, 4 * steps, {}, {}, {}, {}, {}}, 4, padding, values);
  expect_product(WideProduct{m, n, steps, {}, {}, {}, {}, {}}, 1, padding, values);
  expect_product(HalfProduct{m, n, 2 * steps, {}, {}, {}, {}, {}}, 2, padding, values);
}

}  // namespace

TEST(all_numbers_of_rows_and_columns) {
  for (int64_t m = 0; m <= 30; ++m) {
    for (const int64_t n : {16, 32, 48, 64, 80, 144}) {
      expect_products(m, n, dice.below(12));
    }
  }
}

TEST(all_depths) {
  for (int64_t steps = 0; steps <= 20; ++steps) {
    expect_products(1 + dice.below(8), 16 * (1 + dice.below(4)), steps);
  }
  for (const int64_t steps : {127, 128, 129, 256, 385}) {
    expect_products(7, 64, steps);
  }
}

TEST(what_lies_between_rows_is_neither_read_nor_written) {
  for (const int64_t m : {1, 2, 15, 40}) {
    expect_products(m, 48, 9, 5);
  }
}

TEST(sums_of_the_largest_bytes_are_exact) {
  for (const int64_t steps : {1, 9, 1024}) {
    expect_products(9, 64, steps, 0, kLargest);
  }
}
