#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/layout.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace aoti::native {

namespace {

using Complex128 = std::complex<double>;

// Elements go through one of four types that holds all of theirs, so that there are not as many
// loops as pairs of dtypes. A float that is rounded to 16 bits is one already.
template <class Source>
using Middle = std::conditional_t<
    Complex<Source>,
    Complex128,
    std::conditional_t<
        Floating<Source>,
        double,
        std::conditional_t<std::is_same_v<Source, uint64_t>, uint64_t, int64_t>>>;

template <class Body>
void with_any(ScalarType type, const Body& body) {
  is_complex(type) ? with_complex(type, body) : with_ordered(type, body);
}

// As a processor converts: to the least integer where there is none, and NaN too.
template <class Integer>
Integer truncated(double value) noexcept {
  constexpr double kLimit = -static_cast<double>(std::numeric_limits<Integer>::min());
  return value >= -kLimit && value < kLimit ? static_cast<Integer>(value)
                                            : std::numeric_limits<Integer>::min();
}

template <class Target>
Target to_integer(double value) noexcept {
  if constexpr (sizeof(Target) == 8 && std::is_unsigned_v<Target>) {
    return value >= 0x1p63 ? static_cast<Target>(truncated<int64_t>(value - 0x1p63)) + (1ull << 63)
                           : static_cast<Target>(truncated<int64_t>(value));
  } else if constexpr (std::is_unsigned_v<Target> || sizeof(Target) == 8) {
    return static_cast<Target>(truncated<int64_t>(value));
  } else {
    const int32_t word = value > -2147483649.0 && value < 0 ? static_cast<int32_t>(value)
                                                            : truncated<int32_t>(value);
    return static_cast<Target>(word);
  }
}

template <class Target, class Value>
Target element_of(Value value) noexcept {
  if constexpr (std::is_same_v<Target, bool>) {
    return value != Value{};
  } else if constexpr (Complex<Target>) {
    using Part = typename Target::value_type;
    if constexpr (Complex<Value>) {
      return {static_cast<Part>(value.real()), static_cast<Part>(value.imag())};
    } else {
      return {static_cast<Part>(value), Part{}};
    }
  } else if constexpr (Complex<Value>) {
    return element_of<Target>(value.real());
  } else if constexpr (Floating<Target>) {
    return static_cast<Target>(static_cast<Computed<Target>>(value));
  } else if constexpr (std::is_floating_point_v<Value>) {
    return to_integer<Target>(value);
  } else {
    return static_cast<Target>(value);
  }
}

constexpr int64_t kChunk = 256;

template <class Value>
using Store = void (*)(const Value* from, void* to, int64_t offset, int64_t step, int64_t count);

template <class Value>
Store<Value> store_of(ScalarType type) {
  Store<Value> store = nullptr;
  with_any(type, [&]<class Target>(Target) {
    store = [](const Value* from, void* to, int64_t offset, int64_t step, int64_t count) {
      auto* const target = static_cast<Target*>(to) + offset;
      for (int64_t i = 0; i < count; ++i) {
        target[i * step] = element_of<Target>(from[i]);
      }
    };
  });
  return store;
}

template <class Source>
Middle<Source> middle_of(Source value) noexcept {
  if constexpr (Complex<Source>) {
    return {value.real(), value.imag()};
  } else {
    return static_cast<Middle<Source>>(static_cast<Computed<Source>>(value));
  }
}

bool overlap(const Tensor& one, const Tensor& other) {
  return one.storage().identity() == other.storage().identity();
}

bool is_floating_or_complex(ScalarType type) { return is_floating(type) || is_complex(type); }

// Of the dtypes of a category, the one that holds both.
ScalarType wider_integer(ScalarType one, ScalarType other) {
  if (one == ScalarType::kBool || other == ScalarType::kBool) {
    return one == ScalarType::kBool ? other : one;
  }
  const bool bytes = (one == ScalarType::kUInt8 && other == ScalarType::kInt8) ||
                     (one == ScalarType::kInt8 && other == ScalarType::kUInt8);
  if (bytes) {
    return ScalarType::kInt16;
  }
  return std::max(one, other);  // they are in order: uint8, int8, int16, int32, int64
}

ScalarType wider_floating(ScalarType one, ScalarType other) {
  if (one == other) {
    return one;
  }
  const bool halves = itemsize_of(one) == 2 && itemsize_of(other) == 2;
  return halves ? ScalarType::kFloat32 : itemsize_of(one) > itemsize_of(other) ? one : other;
}

ScalarType complex_of(ScalarType floating) {
  return floating == ScalarType::kFloat64   ? ScalarType::kComplex128
         : floating == ScalarType::kFloat16 ? ScalarType::kComplex32
                                            : ScalarType::kComplex64;
}

double largest(ScalarType type) {
  switch (type) {
    case ScalarType::kFloat16:
      return 65504;
    case ScalarType::kBFloat16:
      return 0x1.FEp127;
    case ScalarType::kFloat32:
    case ScalarType::kComplex64:
      return std::numeric_limits<float>::max();
    default:
      return std::numeric_limits<double>::max();
  }
}

void check_promotable(ScalarType type) {
  if (type != ScalarType::kBool && !is_floating_or_complex(type)) {
    with_integer(type, [](auto) {});
  }
}

// What ATen makes of dtypes of tensors with dimensions, of those without and of numbers: the latter
// count only where they are of a higher category.
ScalarType combined(ScalarType higher, ScalarType lower) {
  if (is_complex(higher)) {
    return higher;
  }
  if (is_floating(higher)) {
    return is_complex(lower) ? complex_of(higher) : higher;
  }
  return higher == ScalarType::kBool || is_floating_or_complex(lower) ? promoted(higher, lower)
                                                                      : higher;
}

}  // namespace

void convert(const Tensor& to, const Tensor& from) {
  if (overlap(to, from) && to.numel() != 0) {
    if (to.dtype() == from.dtype() && to.data() == from.data() && to.rank() == from.rank() &&
        std::equal(to.strides(), to.strides() + to.rank(), from.strides()) &&
        std::equal(to.sizes(), to.sizes() + to.rank(), from.sizes())) {
      return;
    }
    return convert(to, clone(from));
  }
  if (to.dtype() == from.dtype()) {
    return copy(to, from);
  }
  const std::vector<int64_t> strides = broadcast_strides(from, to.sizes_list());
  with_any(from.dtype(), [&]<class Source>(Source) {
    using Value = Middle<Source>;
    const Store<Value> store = store_of<Value>(to.dtype());
    const std::array<const int64_t*, 2> steps = {to.strides(), strides.data()};
    for_rows<2>(to.sizes_list(), steps, [&](auto offsets, int64_t count, auto step) {
      const auto* const source = from.as<const Source>() + offsets[1];
      std::array<Value, kChunk> values;
      for (int64_t i = 0; i < count; i += kChunk) {
        const int64_t here = std::min(kChunk, count - i);
        for (int64_t j = 0; j < here; ++j) {
          values[static_cast<std::size_t>(j)] = middle_of(source[(i + j) * step[1]]);
        }
        store(values.data(), to.data(), offsets[0] + i * step[0], step[0], here);
      }
    });
  });
}

Tensor converted(const Tensor& tensor, ScalarType type) {
  if (tensor.dtype() == type) {
    return tensor;
  }
  Tensor made = Tensor::empty(type, tensor.sizes_list(), preserved_strides(tensor));
  convert(made, tensor);
  return made;
}

void fill(const Tensor& tensor, double value) {
  const Tensor number = Tensor::empty(ScalarType::kFloat64, {});
  *number.as<double>() = value;
  const ScalarType type = tensor.dtype();
  const Tensor rounded = converted(number, type);
  bool fits = true;
  if (is_floating_or_complex(type)) {
    fits = !std::isfinite(value) || std::fabs(value) <= largest(type);
  } else if (type != ScalarType::kBool) {
    fits = *converted(rounded, ScalarType::kFloat64).as<double>() == std::trunc(value);
  }
  if (!fits) {
    throw std::invalid_argument("a number that the dtype of a tensor cannot hold");
  }
  copy(tensor, rounded);
}

ScalarType promoted(ScalarType one, ScalarType other) {
  check_promotable(one);
  check_promotable(other);
  if (is_complex(one) || is_complex(other)) {
    const ScalarType first = is_floating(one) ? complex_of(one) : one;
    const ScalarType second = is_floating(other) ? complex_of(other) : other;
    if (!is_complex(first) || !is_complex(second)) {
      return is_complex(first) ? first : second;
    }
    return itemsize_of(first) > itemsize_of(second) ? first : second;
  }
  if (is_floating(one) && is_floating(other)) {
    return wider_floating(one, other);
  }
  if (is_floating(one) || is_floating(other)) {
    return is_floating(one) ? one : other;
  }
  return wider_integer(one, other);
}

ScalarType result_type(const Tensor& one, const Tensor& other, bool wrapped) {
  const ScalarType second = wrapped && is_floating(other.dtype())  ? ScalarType::kFloat32
                            : wrapped && is_complex(other.dtype()) ? ScalarType::kComplex64
                                                                   : other.dtype();
  if (wrapped) {
    return combined(one.dtype(), second);
  }
  if ((one.rank() == 0) == (other.rank() == 0)) {
    return promoted(one.dtype(), second);
  }
  return one.rank() == 0 ? combined(second, one.dtype()) : combined(one.dtype(), second);
}

}  // namespace aoti::native
