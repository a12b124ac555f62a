// Elementwise operators that compiled code leaves to the library, above all those of complex
// numbers, as ATen's (aten/src/ATen/native/BinaryOps.cpp, UnaryOps.cpp and Pow.cpp).

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/layout.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <cmath>

namespace aoti::native {

namespace {

Tensor number(double value) {
  Tensor made = Tensor::empty(ScalarType::kFloat64, {});
  *made.as<double>() = value;
  return made;
}

// What operands are computed in: integers wrap around.
template <class Element>
using Value = std::conditional_t<
    std::is_integral_v<Element> && !std::is_same_v<Element, bool>,
    uint64_t,
    Computed<Element>>;

// The elements of `out` from those of two tensors of its dtype.
template <class Element, class Operation>
void combine(const Tensor& out, const Tensor& one, const Tensor& other, Operation operation) {
  const std::vector<int64_t> first = broadcast_strides(one, out.sizes_list());
  const std::vector<int64_t> second = broadcast_strides(other, out.sizes_list());
  const std::array<const int64_t*, 3> strides = {out.strides(), first.data(), second.data()};
  for_rows<3>(out.sizes_list(), strides, [&](auto offsets, int64_t count, auto steps) {
    auto* const to = out.as<Element>() + offsets[0];
    const auto* const a = one.as<const Element>() + offsets[1];
    const auto* const b = other.as<const Element>() + offsets[2];
    for (int64_t i = 0; i < count; ++i) {
      to[i * steps[0]] = operation(a[i * steps[1]], b[i * steps[2]]);
    }
  });
}

// An operator of two operands. `wrapped` is null, or the one that is a number of Python.
template <class Operation>
Tensor binary(const Tensor& one, const Tensor& other, const Tensor* wrapped, Operation operation) {
  const ScalarType type = wrapped == &one     ? result_type(other, one, true)
                          : wrapped == &other ? result_type(one, other, true)
                                              : result_type(one, other);
  const std::vector<int64_t> sizes = broadcast_sizes({one.sizes_list(), other.sizes_list()});
  const Tensor first = converted(one, type), second = converted(other, type);
  Tensor out = Tensor::empty(type, sizes, result_strides(sizes, {&first, &second}));
  if (out.numel() != 0) {
    with_element(
        type, [&]<class Element>(Element) { combine<Element>(out, first, second, operation); });
  }
  return out;
}

struct Multiply {
  template <class Element>
  Element operator()(Element one, Element other) const {
    if constexpr (Complex<Element>) {
      return product_of(one, other);
    } else if constexpr (std::is_same_v<Element, bool>) {
      return one && other;
    } else {
      return static_cast<Element>(
          static_cast<Value<Element>>(one) * static_cast<Value<Element>>(other));
    }
  }
};

struct Add {
  double alpha;

  template <class Element>
  Element operator()(Element one, Element other) const {
    if constexpr (Complex<Element>) {
      using Part = typename Element::value_type;
      return one + product_of({static_cast<Part>(alpha), Part{}}, other);
    } else if constexpr (std::is_same_v<Element, bool>) {
      return one || (other && alpha != 0);
    } else {
      using Number = Value<Element>;
      Number factor;
      if constexpr (std::is_integral_v<Element>) {
        factor = static_cast<Number>(static_cast<int64_t>(alpha));
      } else {
        factor = static_cast<Number>(alpha);
      }
      return static_cast<Element>(static_cast<Number>(one) + factor * static_cast<Number>(other));
    }
  }
};

template <class Integer>
Integer integer_power(Integer base, Integer exponent) {
  if constexpr (std::is_signed_v<Integer>) {
    if (exponent < 0) {
      return base == 1 ? 1 : base == -1 ? (exponent % 2 != 0 ? -1 : 1) : 0;
    }
  }
  uint64_t result = 1, factor = static_cast<uint64_t>(base);
  for (auto rest = static_cast<uint64_t>(exponent); rest != 0; rest >>= 1) {
    result *= (rest & 1) != 0 ? factor : 1;
    factor *= factor;
  }
  return static_cast<Integer>(result);
}

struct Power {
  template <class Element>
  Element operator()(Element base, Element exponent) const {
    if constexpr (std::is_same_v<Element, bool>) {
      throw std::invalid_argument("a power of bool");
    } else if constexpr (std::is_integral_v<Element>) {
      return integer_power(base, exponent);
    } else if constexpr (Complex<Element>) {
      return std::pow(base, exponent);
    } else {
      return static_cast<Element>(
          std::pow(static_cast<Computed<Element>>(base), static_cast<Computed<Element>>(exponent)));
    }
  }
};

// A power with the same exponent for all. ATen computes some of them otherwise than by pow, with
// other results for infinities and -0, and fewer of them for float16.
struct PowerOf {
  double exponent;

  template <class Element>
  Element operator()(Element given, Element wanted) const {
    if constexpr (std::is_integral_v<Element>) {
      return Power{}(given, wanted);
    } else {
      const Computed<Element> base = given;
      constexpr bool kRoots = !std::is_same_v<Element, Float16>;
      return static_cast<Element>(of<kRoots>(base, static_cast<Computed<Element>>(wanted)));
    }
  }

  template <bool kRoots, class Number>
  Number of(Number base, Number wanted) const {
    const auto one = static_cast<Number>(1);
    if (kRoots && exponent == 0.5) {
      return std::sqrt(base);
    }
    if (exponent == 2) {
      return times(base, base);
    }
    if (exponent == 3) {
      return times(times(base, base), base);
    }
    if (kRoots && exponent == -0.5) {
      return one / std::sqrt(base);
    }
    if (kRoots && exponent == -1) {
      return one / base;
    }
    if (exponent == -2) {
      return one / times(base, base);
    }
    return std::pow(base, wanted);
  }

  template <class Number>
  static Number times(Number one, Number other) {
    return Multiply{}(one, other);
  }
};

// Powers of one operand by `operation(base, exponent)`, into `out`.
template <class Operation>
void power_into(
    const Tensor& out, const Tensor& base, const Tensor& exponent, Operation operation) {
  const Tensor first = converted(base, out.dtype()), second = converted(exponent, out.dtype());
  with_element(out.dtype(), [&]<class Element>(Element) {
    combine<Element>(out, first, second, operation);
  });
}

Tensor power_of(const Tensor& self, double exponent) {
  const Tensor wrapped = number(exponent);
  const Tensor base = converted(self, result_type(self, wrapped, true));
  Tensor out =
      Tensor::empty(base.dtype(), base.sizes_list(), result_strides(base.sizes_list(), {&base}));
  if (exponent == 0) {
    fill(out, 1);
  } else if (exponent == 1) {
    copy(out, base);
  } else {
    power_into(out, base, wrapped, PowerOf{exponent});
  }
  return out;
}

Tensor power_to(double base, const Tensor& exponent) {
  const Tensor wrapped = number(base);
  Tensor out = Tensor::empty(result_type(exponent, wrapped, true), exponent.sizes_list());
  if (base == 1) {
    fill(out, 1);
  } else {
    power_into(out, wrapped, exponent, Power{});
  }
  return out;
}

ScalarType real_type_of(ScalarType type) {
  return type == ScalarType::kComplex64    ? ScalarType::kFloat32
         : type == ScalarType::kComplex128 ? ScalarType::kFloat64
                                           : type;
}

template <class Element>
auto absolute_of(Element value) {
  if constexpr (Complex<Element>) {
    return std::abs(value);
  } else if constexpr (std::is_unsigned_v<Element>) {
    return value;
  } else if constexpr (std::is_integral_v<Element>) {
    return static_cast<Element>(
        value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value));
  } else {
    return static_cast<Element>(std::fabs(static_cast<Computed<Element>>(value)));
  }
}

Tensor absolute(const Tensor& self) {
  if (self.dtype() == ScalarType::kBool) {
    throw std::invalid_argument("bool has no absolute value");
  }
  const std::vector<int64_t> strides = is_complex(self.dtype())
                                           ? preserved_strides(self)
                                           : result_strides(self.sizes_list(), {&self});
  Tensor out = Tensor::empty(real_type_of(self.dtype()), self.sizes_list(), strides);
  with_element(self.dtype(), [&]<class Element>(Element) {
    using Result = decltype(absolute_of(Element{}));
    const std::array<const int64_t*, 2> steps = {out.strides(), self.strides()};
    for_rows<2>(self.sizes_list(), steps, [&](auto offsets, int64_t count, auto step) {
      auto* const to = out.as<Result>() + offsets[0];
      const auto* const from = self.as<const Element>() + offsets[1];
      for (int64_t i = 0; i < count; ++i) {
        to[i * step[0]] = absolute_of(from[i * step[1]]);
      }
    });
  });
  return out;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t aotinative_cpu_abs(Handle self, Handle* made) {
  return served("abs", [&] { hand_over(absolute(*self), made); });
}

AOTI_SERVED int32_t
aotinative_cpu_add_Tensor(Handle self, Handle other, double alpha, Handle* made) {
  return served("add", [&] { hand_over(binary(*self, *other, nullptr, Add{alpha}), made); });
}

AOTI_SERVED int32_t
aotinative_cpu_add_Scalar(Handle self, double other, double alpha, Handle* made) {
  return served("add", [&] {
    const Tensor wrapped = number(other);
    hand_over(binary(*self, wrapped, &wrapped, Add{alpha}), made);
  });
}

AOTI_SERVED int32_t aotinative_cpu_mul_Tensor(Handle self, Handle other, Handle* made) {
  return served("mul", [&] { hand_over(binary(*self, *other, nullptr, Multiply{}), made); });
}

AOTI_SERVED int32_t aotinative_cpu_mul_Scalar(Handle self, double other, Handle* made) {
  return served("mul", [&] {
    const Tensor wrapped = number(other);
    hand_over(binary(*self, wrapped, &wrapped, Multiply{}), made);
  });
}

AOTI_SERVED int32_t aotinative_cpu_pow_Tensor_Tensor(Handle self, Handle exponent, Handle* made) {
  return served("pow", [&] { hand_over(binary(*self, *exponent, nullptr, Power{}), made); });
}

AOTI_SERVED int32_t aotinative_cpu_pow_Tensor_Scalar(Handle self, double exponent, Handle* made) {
  return served("pow", [&] { hand_over(power_of(*self, exponent), made); });
}

AOTI_SERVED int32_t aotinative_cpu_pow_Scalar(double self, Handle exponent, Handle* made) {
  return served("pow", [&] { hand_over(power_to(self, *exponent), made); });
}
