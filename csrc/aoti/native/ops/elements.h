#pragma once

// What operators share: the C++ type of a dtype, elements in rows, and work in parts.

#include <aoti/native/kernels/threads.h>
#include <aoti/native/shim/half.h>
#include <aoti/native/shim/tensor.h>

#include <array>
#include <complex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace aoti::native {

[[noreturn]] inline void refuse_dtype(ScalarType type) {
  throw std::invalid_argument(
      "it takes no tensor of dtype number " + std::to_string(static_cast<int32_t>(type)));
}

template <class Element>
concept Floating = std::is_same_v<Element, float> || std::is_same_v<Element, double> ||
                   std::is_same_v<Element, Float16> || std::is_same_v<Element, BFloat16>;

template <class Element>
concept Complex =
    std::is_same_v<Element, std::complex<float>> || std::is_same_v<Element, std::complex<double>>;

// The type that elements are computed in: float for the 16-bit ones.
template <class Element>
using Computed =
    std::conditional_t<Floating<Element> && !std::is_same_v<Element, double>, float, Element>;

// Call `body` with a value of the type that stands for a dtype. Each throws std::invalid_argument
// for the dtypes that it does not name.
template <class Body>
void with_floating(ScalarType type, const Body& body) {
  switch (type) {
    case ScalarType::kFloat32:
      return body(float{});
    case ScalarType::kFloat64:
      return body(double{});
    case ScalarType::kBFloat16:
      return body(BFloat16{});
    case ScalarType::kFloat16:
      return body(Float16{});
    default:
      refuse_dtype(type);
  }
}

template <class Body>
void with_integer(ScalarType type, const Body& body) {
  switch (type) {
    case ScalarType::kInt64:
      return body(int64_t{});
    case ScalarType::kInt32:
      return body(int32_t{});
    case ScalarType::kInt16:
      return body(int16_t{});
    case ScalarType::kInt8:
      return body(int8_t{});
    case ScalarType::kUInt8:
      return body(uint8_t{});
    default:
      refuse_dtype(type);
  }
}

template <class Body>
void with_complex(ScalarType type, const Body& body) {
  switch (type) {
    case ScalarType::kComplex64:
      return body(std::complex<float>{});
    case ScalarType::kComplex128:
      return body(std::complex<double>{});
    default:
      refuse_dtype(type);
  }
}

inline bool is_floating(ScalarType type) noexcept {
  return type == ScalarType::kFloat32 || type == ScalarType::kFloat64 ||
         type == ScalarType::kBFloat16 || type == ScalarType::kFloat16;
}

inline bool is_complex(ScalarType type) noexcept {
  return type == ScalarType::kComplex64 || type == ScalarType::kComplex128 ||
         type == ScalarType::kComplex32;
}

template <class Body>
void with_number(ScalarType type, const Body& body) {  // integers and floating
  is_floating(type) ? with_floating(type, body) : with_integer(type, body);
}

template <class Body>
void with_element(ScalarType type, const Body& body) {  // bool, complex and numbers
  if (type == ScalarType::kBool) {
    body(bool{});
  } else if (is_complex(type)) {
    with_complex(type, body);
  } else {
    with_number(type, body);
  }
}

template <class Body>
void with_ordered(ScalarType type, const Body& body) {  // all that can be compared
  switch (type) {
    case ScalarType::kBool:
      return body(bool{});
    case ScalarType::kUInt16:
      return body(uint16_t{});
    case ScalarType::kUInt32:
      return body(uint32_t{});
    case ScalarType::kUInt64:
      return body(uint64_t{});
    default:
      return with_number(type, body);
  }
}

// Without the recovery of infinities of C99's Annex G, as in PyTorch.
template <class Part>
std::complex<Part> product_of(std::complex<Part> one, std::complex<Part> other) noexcept {
  return {
      one.real() * other.real() - one.imag() * other.imag(),
      one.real() * other.imag() + one.imag() * other.real()};
}

// Calls `body` with an unsigned integer of `itemsize` bytes, or a pair of them for 16: enough for
// what only moves elements.
struct Element16 {
  uint64_t words[2];
};

template <class Body>
void with_itemsize(int64_t itemsize, const Body& body) {
  switch (itemsize) {
    case 1:
      return body(uint8_t{});
    case 2:
      return body(uint16_t{});
    case 4:
      return body(uint32_t{});
    case 8:
      return body(uint64_t{});
    case 16:
      return body(Element16{});
    default:
      throw std::invalid_argument("elements of an odd size");
  }
}

// The index of a dimension that may count from the end. A tensor without dimensions takes 0 and -1.
// Throws std::invalid_argument.
inline int64_t wrapped_dim(int64_t dim, int64_t rank) {
  const int64_t count = rank == 0 ? 1 : rank;
  if (dim < -count || dim >= count) {
    throw std::invalid_argument(
        "a tensor of " + std::to_string(rank) + " dimensions has no dimension " +
        std::to_string(dim));
  }
  return dim < 0 ? dim + count : dim;
}

inline int64_t count_of(Extents sizes) noexcept {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    count *= size;
  }
  return count;
}

// A tensor as `outer` x `size` x `inner` elements in C order, around one of its dimensions.
struct Around {
  int64_t outer = 1, size = 1, inner = 1;

  Around(Extents sizes, int64_t dim) noexcept {
    if (!sizes.empty()) {
      const auto index = static_cast<std::size_t>(dim);
      outer = count_of(sizes.first(index));
      size = sizes[index];
      inner = count_of(sizes.subspan(index + 1));
    }
  }
};

// `tensor` itself if it is in C order, else a copy that is.
inline Tensor in_c_order(const Tensor& tensor) {
  if (tensor.is_contiguous()) {
    return tensor;
  }
  Tensor made = Tensor::empty(tensor.dtype(), tensor.sizes_list());
  copy(made, tensor);
  return made;
}

// Shares out `count` pieces of work, of `cost` elements each, among threads:
// body(begin, end).
template <class Body>
void for_parts(int64_t count, int64_t cost, const Body& body) {
  constexpr int64_t kLeast = 32768;  // elements that are worth a thread
  if (count == 0) {
    return;
  }
  int64_t whole = 0;
  if (__builtin_mul_overflow(count, std::max<int64_t>(cost, 1), &whole)) {
    whole = INT64_MAX;
  }
  const int64_t parts = whole < 2 * kLeast ? 1 : std::min({count, whole / kLeast, threads_here()});
  if (parts == 1) {
    return body(int64_t{0}, count);
  }
  parallel(parts, [&](int64_t index) {
    const Range range = range_of(count, 1, parts, index);
    body(range.begin, range.end);
  });
}

// Walks over elements of `sizes` in C order, in rows along the last dimension:
// row(offsets, count, steps), with the offset of the first element of a row and the step between
// its elements for each of the `strides`.
template <std::size_t N, class Row>
void for_rows(Extents sizes, const std::array<const int64_t*, N>& strides, const Row& row) {
  std::array<int64_t, N> offsets{}, steps{};
  if (count_of(sizes) == 0) {
    return;
  }
  if (sizes.empty()) {
    return row(offsets, int64_t{1}, steps);
  }
  const std::size_t last = sizes.size() - 1;
  for (std::size_t n = 0; n < N; ++n) {
    steps[n] = strides[n][last];
  }
  std::vector<int64_t> at(last, 0);
  while (true) {
    row(offsets, sizes[last], steps);
    std::size_t dim = last;
    while (dim-- > 0) {
      if (++at[dim] < sizes[dim]) {
        for (std::size_t n = 0; n < N; ++n) {
          offsets[n] += strides[n][dim];
        }
        break;
      }
      at[dim] = 0;
      for (std::size_t n = 0; n < N; ++n) {
        offsets[n] -= strides[n][dim] * (sizes[dim] - 1);
      }
    }
    if (dim == static_cast<std::size_t>(-1)) {
      return;
    }
  }
}

template <class Element>
bool is_nan(Element value) noexcept {
  if constexpr (Floating<Element>) {
    const Computed<Element> computed = value;
    return computed != computed;
  } else {
    return false;
  }
}

}  // namespace aoti::native
