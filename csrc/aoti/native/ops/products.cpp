// Products other than those of matmul.cpp: of a matrix and a vector, and of bytes.

#include <aoti/native/kernels/narrow/narrow.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/matmul.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <type_traits>
#include <vector>

namespace aoti::native {

namespace {

// A vector as a matrix of one column.
Tensor column(const Tensor& vector) {
  const int64_t sizes[] = {vector.size(0), 1}, strides[] = {vector.stride(0), 1};
  return Tensor(vector.storage(), vector.dtype(), sizes, strides, vector.offset());
}

Tensor addmv(
    const Tensor& self, const Tensor& matrix, const Tensor& vector, double beta, double alpha) {
  if (matrix.rank() != 2 || vector.rank() != 1 || self.dtype() != matrix.dtype() ||
      self.rank() > 1) {
    throw std::invalid_argument("a matrix and vectors that do not fit");
  }
  const int64_t rows = matrix.size(0);
  Tensor made = Tensor::empty(self.dtype(), extents(&rows, 1));
  copy(made, self);
  Tensor out = column(made);
  matmul(out, &out, matrix, column(vector), beta, alpha);
  return made;
}

template <class Element>
void multiply_plainly(const Tensor& out, const Tensor& one, const Tensor& other) {
  const int64_t n = out.size(1), k = one.size(1);
  for_parts(out.size(0), n * k, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> sums(static_cast<std::size_t>(n));
    for (int64_t i = begin; i < end; ++i) {
      std::fill(sums.begin(), sums.end(), 0);
      const auto* const a = one.as<const Element>() + i * one.stride(0);
      for (int64_t l = 0; l < k; ++l) {
        const int32_t factor = a[l * one.stride(1)];
        const auto* const b = other.as<const int8_t>() + l * other.stride(0);
        const int64_t step = other.stride(1);
        for (int64_t j = 0; j < n; ++j) {
          sums[static_cast<std::size_t>(j)] += factor * b[j * step];
        }
      }
      auto* const to = out.as<int32_t>() + i * out.stride(0);
      for (int64_t j = 0; j < n; ++j) {
        to[j * out.stride(1)] = sums[static_cast<std::size_t>(j)];
      }
    }
  });
}

// By a kernel, in blocks of columns, of which `other` is copied. A signed `one` is 128 too large
// there, which the sums of columns make good.
template <class Element>
void multiply_in_blocks(const Tensor& out, const Tensor& one, const Tensor& other) {
  constexpr int64_t kBlock = 4 * kNarrowColumns;
  constexpr int32_t kAdded = std::is_signed_v<Element> ? 128 : 0;
  const int64_t m = out.size(0), n = out.size(1), k = one.size(1), depth = (k + 3) / 4 * 4;
  std::vector<uint8_t> left(static_cast<std::size_t>(m * depth));
  for (int64_t i = 0; i < m; ++i) {
    const auto* const from = one.as<const Element>() + i * one.stride(0);
    for (int64_t p = 0; p < k; ++p) {
      left[static_cast<std::size_t>(i * depth + p)] =
          static_cast<uint8_t>(from[p * one.stride(1)] + kAdded);
    }
  }
  for_parts((n + kBlock - 1) / kBlock, m * k * kBlock / 16, [&](int64_t begin, int64_t end) {
    std::vector<int8_t> right(static_cast<std::size_t>(depth * kBlock));
    std::vector<int32_t> products(static_cast<std::size_t>(m * kBlock));
    for (int64_t first = begin * kBlock; first < std::min(n, end * kBlock); first += kBlock) {
      const int64_t columns = std::min(kBlock, n - first);
      uint32_t surplus[kBlock] = {};
      for (int64_t j = 0; j < columns; ++j) {
        const auto* const from = other.as<const int8_t>() + (first + j) * other.stride(1);
        for (int64_t p = 0; p < k; ++p) {
          const int8_t value = from[p * other.stride(0)];
          right[static_cast<std::size_t>((p / 4 * kBlock + j) * 4 + p % 4)] = value;
          surplus[j] += static_cast<uint32_t>(kAdded * value);
        }
      }
      narrow_kernels().bytes(
          {m, kBlock, depth, left.data(), depth, right.data(), products.data(), kBlock});
      for (int64_t i = 0; i < m; ++i) {
        auto* const to = out.as<int32_t>() + i * out.stride(0) + first * out.stride(1);
        for (int64_t j = 0; j < columns; ++j) {
          const auto product =
              static_cast<uint32_t>(products[static_cast<std::size_t>(i * kBlock + j)]);
          to[j * out.stride(1)] = static_cast<int32_t>(product - surplus[j]);
        }
      }
    }
  });
}

template <class Element>
void multiply_bytes(const Tensor& out, const Tensor& one, const Tensor& other) {
  if (out.size(0) > 1 && narrow_kernels().bytes != nullptr) {
    return multiply_in_blocks<Element>(out, one, other);
  }
  multiply_plainly<Element>(out, one, other);
}

void int_mm(const Tensor& out, const Tensor& one, const Tensor& other) {
  const bool fits = out.rank() == 2 && one.rank() == 2 && other.rank() == 2 &&
                    out.dtype() == ScalarType::kInt32 && other.dtype() == ScalarType::kInt8 &&
                    one.size(1) == other.size(0) && out.size(0) == one.size(0) &&
                    out.size(1) == other.size(1);
  if (!fits) {
    throw std::invalid_argument("matrices of bytes that do not fit");
  }
  if (one.dtype() == ScalarType::kInt8) {
    multiply_bytes<int8_t>(out, one, other);
  } else if (one.dtype() == ScalarType::kUInt8) {
    multiply_bytes<uint8_t>(out, one, other);
  } else {
    refuse_dtype(one.dtype());
  }
}

template <class Product>
bool multiplied(void (*kernel)(const Product&) noexcept, const Product& product) noexcept {
  if (kernel == nullptr) {
    return false;
  }
  kernel(product);
  return true;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t aotinative_cpu_addmv(
    Handle self, Handle matrix, Handle vector, double beta, double alpha, Handle* made) {
  return served("addmv", [&] { hand_over(addmv(*self, *matrix, *vector, beta, alpha), made); });
}

AOTI_SERVED int32_t aotinative_cpu__int_mm_out(Handle out, Handle one, Handle other) {
  return served("_int_mm", [&] { int_mm(*out, *one, *other); });
}

// What packages of aoti.export call for a block of a layer's weights, by weak imports, since
// libtorch does not have them: NARROW_PRODUCT in aoti/exporting/passes/kernel_sources.py. Whether
// there is a kernel for this CPU; if not, nothing was computed.

AOTI_SERVED bool aotinative_own_multiply_bytes(
    int64_t rows,
    int64_t columns,
    int64_t depth,
    const uint8_t* a,
    int64_t a_stride,
    const int8_t* b,
    int32_t* c,
    int64_t c_stride) {
  return multiplied(
      narrow_kernels().bytes, ByteProduct{rows, columns, depth, a, a_stride, b, c, c_stride});
}

AOTI_SERVED bool aotinative_own_multiply_wide(
    int64_t rows,
    int64_t columns,
    int64_t depth,
    const float* a,
    int64_t a_stride,
    const int8_t* b,
    float* c,
    int64_t c_stride) {
  return multiplied(
      narrow_kernels().wide, WideProduct{rows, columns, depth, a, a_stride, b, c, c_stride});
}

AOTI_SERVED bool aotinative_own_multiply_halves(
    int64_t rows,
    int64_t columns,
    int64_t depth,
    const uint16_t* a,
    int64_t a_stride,
    const uint16_t* b,
    float* c,
    int64_t c_stride) {
  return multiplied(
      narrow_kernels().halves, HalfProduct{rows, columns, depth, a, a_stride, b, c, c_stride});
}
