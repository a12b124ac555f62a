// Products other than those of matmul.cpp: of a matrix and a vector, and of bytes.

#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/matmul.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

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
void multiply_bytes(const Tensor& out, const Tensor& one, const Tensor& other) {
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
