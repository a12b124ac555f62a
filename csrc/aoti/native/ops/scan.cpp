// Running sums, products, minima and maxima, as ATen's
// (aten/src/ATen/native/cpu/ReduceOpsKernel.cpp and ReduceOps.cpp). All results are in C order.

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <cmath>
#include <functional>
#include <limits>

namespace aoti::native {

namespace {

// What ATen adds up in: wider than float for float, and signed integers wrap around.
template <class Element>
struct Accumulated {
  using Type = std::conditional_t<Floating<Element>, float, uint64_t>;
};
template <>
struct Accumulated<float> {
  using Type = double;
};
template <>
struct Accumulated<double> {
  using Type = double;
};
template <Complex Element>
struct Accumulated<Element> {
  using Type = std::complex<double>;
};

template <class Element, class Sum>
Element rounded(Sum sum) {
  if constexpr (Complex<Element>) {
    using Part = typename Element::value_type;
    return {static_cast<Part>(sum.real()), static_cast<Part>(sum.imag())};
  } else {
    return static_cast<Element>(sum);
  }
}

// Calls body(first, step) for each line along the scanned dimension of a tensor in C order.
template <class Body>
void for_lines(const Around& around, const Body& body) {
  for_parts(around.outer * around.inner, around.size, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      body(line / around.inner * around.size * around.inner + line % around.inner, around.inner);
    }
  });
}

template <class Element, class Operation>
void accumulate(const Tensor& from, const Tensor& to, int64_t dim, int start, Operation operation) {
  using Sum = typename Accumulated<Element>::Type;
  const Around around(from.sizes_list(), dim);
  const auto* const source = from.as<const Element>();
  auto* const target = to.as<Element>();
  for_lines(around, [&](int64_t first, int64_t step) {
    Sum sum = static_cast<Sum>(start);
    for (int64_t i = 0, at = first; i < around.size; ++i, at += step) {
      if constexpr (Complex<Element>) {
        sum = operation(sum, Sum(source[at].real(), source[at].imag()));
      } else {
        sum = operation(sum, static_cast<Sum>(source[at]));
      }
      target[at] = rounded<Element>(sum);
    }
  });
}

struct Multiply {
  template <class Value>
  Value operator()(Value one, Value other) const {
    return one * other;
  }
  std::complex<double> operator()(std::complex<double> one, std::complex<double> other) const {
    return product_of(one, other);
  }
};

template <class Operation>
Tensor accumulated(
    const Tensor& self, int64_t given, const int32_t* dtype, int start, Operation operation) {
  const int64_t dim = wrapped_dim(given, self.rank());
  const ScalarType own = self.dtype();
  const ScalarType type = dtype != nullptr                      ? static_cast<ScalarType>(*dtype)
                          : is_floating(own) || is_complex(own) ? own
                                                                : ScalarType::kInt64;
  const Tensor from = in_c_order(converted(self, type));
  if (from.rank() == 0) {
    return clone(from);
  }
  Tensor made = Tensor::empty(type, self.sizes_list());
  const auto body = [&]<class Element>(Element) {
    accumulate<Element>(from, made, dim, start, operation);
  };
  is_complex(type) ? with_complex(type, body) : with_number(type, body);
  return made;
}

template <class Element, class Replaces>
void find_extremes(
    const Tensor& from, Tensor& values, Tensor& indices, int64_t dim, Replaces replaces) {
  const Around around(from.sizes_list(), dim);
  const auto* const source = from.as<const Element>();
  auto* const value = values.as<Element>();
  auto* const index = indices.as<int64_t>();
  for_lines(around, [&](int64_t first, int64_t step) {
    if (around.size == 0) {
      return;
    }
    Element best = source[first];
    int64_t where = 0;
    for (int64_t i = 0, at = first; i < around.size; ++i, at += step) {
      const Element current = source[at];
      if (is_nan(current) || (!is_nan(best) && replaces(current, best))) {
        best = current;
        where = i;
      }
      value[at] = best;
      index[at] = where;
    }
  });
}

template <class Replaces>
void extremes(
    const Tensor& self, int64_t given, Handle* values, Handle* indices, Replaces replaces) {
  const int64_t dim = wrapped_dim(given, self.rank());
  const Tensor from = in_c_order(self);
  Tensor found = Tensor::empty(self.dtype(), self.sizes_list());
  Tensor where = Tensor::empty(ScalarType::kInt64, self.sizes_list());
  const auto body = [&]<class Element>(Element) {
    find_extremes<Element>(from, found, where, dim, replaces);
  };
  if (self.dtype() == ScalarType::kBool) {
    body(bool{});
  } else {
    with_number(self.dtype(), body);
  }
  auto first = std::make_unique<Tensor>(std::move(found));
  hand_over(std::move(where), indices);
  *values = first.release();
}

// log(exp(x) + exp(y)), where both may be infinite.
template <class Value>
Value add_in_log_space(Value x, Value y) {
  const Value least = std::isnan(y) ? y : std::min(x, y);
  const Value most = std::isnan(y) ? y : std::max(x, y);
  return least != most || std::isfinite(least) ? std::log1p(std::exp(least - most)) + most : x;
}

Tensor log_cumulated(const Tensor& self, int64_t given) {
  const int64_t dim = wrapped_dim(given, self.rank());
  const Tensor from = in_c_order(self);
  Tensor made = Tensor::empty(self.dtype(), self.sizes_list());
  with_floating(self.dtype(), [&]<class Element>(Element) {
    using Sum = typename Accumulated<Element>::Type;
    const Around around(from.sizes_list(), dim);
    const auto* const source = from.as<const Element>();
    auto* const target = made.as<Element>();
    for_lines(around, [&](int64_t first, int64_t step) {
      Sum sum = -std::numeric_limits<Sum>::infinity();
      for (int64_t i = 0, at = first; i < around.size; ++i, at += step) {
        sum = add_in_log_space(static_cast<Sum>(source[at]), sum);
        target[at] = static_cast<Element>(sum);
      }
    });
  });
  return made;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t
aotinative_cpu_cumsum(Handle self, int64_t dim, const int32_t* dtype, Handle* made) {
  return served(
      "cumsum", [&] { hand_over(accumulated(*self, dim, dtype, 0, std::plus<>{}), made); });
}

AOTI_SERVED int32_t
aotinative_cpu_cumprod(Handle self, int64_t dim, const int32_t* dtype, Handle* made) {
  return served("cumprod", [&] { hand_over(accumulated(*self, dim, dtype, 1, Multiply{}), made); });
}

AOTI_SERVED int32_t
aotinative_cpu_cummin(Handle self, int64_t dim, Handle* values, Handle* indices) {
  return served("cummin", [&] { extremes(*self, dim, values, indices, std::less_equal<>{}); });
}

AOTI_SERVED int32_t
aotinative_cpu_cummax(Handle self, int64_t dim, Handle* values, Handle* indices) {
  return served("cummax", [&] { extremes(*self, dim, values, indices, std::greater_equal<>{}); });
}

AOTI_SERVED int32_t aotinative_cpu_logcumsumexp(Handle self, int64_t dim, Handle* made) {
  return served("logcumsumexp", [&] { hand_over(log_cumulated(*self, dim), made); });
}
