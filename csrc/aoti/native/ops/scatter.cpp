// Elements written where an index says, as ATen's scatter and scatter_reduce
// (aten/src/ATen/native/cpu/ScatterGatherKernel.cpp).

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <limits>
#include <string_view>

namespace aoti::native {

namespace {

// What is scattered, and where to. Tensors without dimensions count as one of size 1.
struct Scatter {
  std::vector<int64_t> sizes, index_strides, source_strides, out_strides;
  int64_t step = 0, limit = 1;  // of the dimension that is indexed, in the output

  Scatter(const Tensor& out, int64_t dim, const Tensor& index, const Tensor* source) {
    const std::size_t rank = ensured(out.rank());
    if (index.numel() != 0 &&
        (ensured(index.rank()) != rank || (source != nullptr && ensured(source->rank()) != rank))) {
      throw std::invalid_argument("the tensors are of different ranks");
    }
    sizes.assign(rank, 1);
    index_strides.assign(rank, 0);
    source_strides.assign(rank, 0);
    out_strides.assign(rank, 0);
    if (index.numel() == 0) {
      sizes[0] = 0;
      return;
    }
    for (std::size_t i = 0; i < rank; ++i) {
      sizes[i] = size_of(index, i);
      const bool fits = (i == static_cast<std::size_t>(dim) || sizes[i] <= size_of(out, i)) &&
                        (source == nullptr || sizes[i] <= size_of(*source, i));
      if (!fits) {
        throw std::invalid_argument("an index reaches beyond the tensors");
      }
      index_strides[i] = stride_of(index, i);
      source_strides[i] = source == nullptr ? 0 : stride_of(*source, i);
      out_strides[i] = stride_of(out, i);
    }
    step = std::exchange(out_strides[static_cast<std::size_t>(dim)], 0);
    limit = size_of(out, static_cast<std::size_t>(dim));
  }

  static std::size_t ensured(int64_t rank) {
    return static_cast<std::size_t>(std::max<int64_t>(rank, 1));
  }
  static int64_t size_of(const Tensor& tensor, std::size_t dim) {
    return tensor.rank() == 0 ? 1 : tensor.sizes()[dim];
  }
  static int64_t stride_of(const Tensor& tensor, std::size_t dim) {
    return tensor.rank() == 0 ? 1 : tensor.strides()[dim];
  }

  // body(offset in the output, offset in the source) for each element of the index.
  template <class Body>
  void each(const Tensor& index, const Body& body) const {
    const auto walk = [&]<class Index>(Index) {
      const std::array<const int64_t*, 3> strides = {
          index_strides.data(), source_strides.data(), out_strides.data()};
      for_rows<3>(sizes, strides, [&](auto offsets, int64_t count, auto steps) {
        const auto* const row = index.as<const Index>() + offsets[0];
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = row[i * steps[0]];
          if (at < 0 || at >= limit) {
            throw std::invalid_argument(
                "index " + std::to_string(at) + " is out of range for a dimension of size " +
                std::to_string(limit));
          }
          body(offsets[2] + i * steps[2] + at * step, offsets[1] + i * steps[1]);
        }
      });
    };
    if (index.dtype() == ScalarType::kInt32) {
      return walk(int32_t{});
    }
    if (index.dtype() != ScalarType::kInt64 && index.numel() != 0) {
      throw std::invalid_argument("an index is of int64 or int32");
    }
    walk(int64_t{});
  }
};

void check(const Tensor& out, const Tensor& self, const Tensor* source) {
  if (out.dtype() != self.dtype() || (source != nullptr && source->dtype() != self.dtype()) ||
      !std::equal(
          out.sizes(), out.sizes() + out.rank(), self.sizes(), self.sizes() + self.rank())) {
    throw std::invalid_argument("the tensors are of different dtypes or sizes");
  }
}

// `tensor`, or a copy if it shares memory with the output.
Tensor apart(const Tensor& tensor, const Tensor& out) {
  return tensor.storage().identity() == out.storage().identity() ? clone(tensor) : tensor;
}

void scatter(
    const Tensor& out, const Tensor& self, int64_t given, const Tensor& index, const Tensor& src) {
  check(out, self, &src);
  const int64_t dim = wrapped_dim(given, self.rank());
  const Tensor where = apart(index, out), from = apart(src, out);
  convert(out, self);
  const Scatter plan(out, dim, where, &from);
  with_itemsize(out.itemsize(), [&]<class Element>(Element) {
    auto* const to = out.as<Element>();
    const auto* const source = from.as<const Element>();
    plan.each(where, [&](int64_t at, int64_t other) { to[at] = source[other]; });
  });
}

void scatter_value(
    const Tensor& out, const Tensor& self, int64_t given, const Tensor& index, double value) {
  check(out, self, nullptr);
  const int64_t dim = wrapped_dim(given, self.rank());
  const Tensor where = apart(index, out);
  convert(out, self);
  const Scatter plan(out, dim, where, nullptr);
  const Tensor number = Tensor::empty(out.dtype(), {});
  fill(number, value);
  with_itemsize(out.itemsize(), [&]<class Element>(Element) {
    auto* const to = out.as<Element>();
    const Element written = *number.as<Element>();
    plan.each(where, [&](int64_t at, int64_t) { to[at] = written; });
  });
}

enum class Reduction { kSum, kProduct, kMean, kMost, kLeast };

Reduction reduction_of(std::string_view name) {
  constexpr std::pair<std::string_view, Reduction> kNames[] = {
      {"sum", Reduction::kSum},
      {"prod", Reduction::kProduct},
      {"mean", Reduction::kMean},
      {"amax", Reduction::kMost},
      {"amin", Reduction::kLeast},
  };
  for (const auto& [known, reduction] : kNames) {
    if (known == name) {
      return reduction;
    }
  }
  throw std::invalid_argument("no reduction is named " + std::string(name));
}

template <class Element>
Element neutral(Reduction reduction) {
  using Limits = std::numeric_limits<Computed<Element>>;
  constexpr bool kInfinite = Limits::has_infinity;
  switch (reduction) {
    case Reduction::kProduct:
      return Element(1);
    case Reduction::kMost:
      return Element(kInfinite ? -Limits::infinity() : Limits::lowest());
    case Reduction::kLeast:
      return Element(kInfinite ? Limits::infinity() : Limits::max());
    default:
      return Element(0);
  }
}

template <class Element>
Element combined(Reduction reduction, Element one, Element other) {
  // Integers wrap around.
  using Value = std::conditional_t<
      std::is_same_v<Element, bool>,
      bool,
      std::conditional_t<std::is_integral_v<Element>, uint64_t, Computed<Element>>>;
  const auto a = static_cast<Value>(one), b = static_cast<Value>(other);
  switch (reduction) {
    case Reduction::kSum:
    case Reduction::kMean:
      return static_cast<Element>(a + b);
    case Reduction::kProduct:
      return static_cast<Element>(a * b);
    case Reduction::kMost:
      return is_nan(other) || one < other ? other : one;
    default:
      return is_nan(other) || other < one ? other : one;
  }
}

template <class Element>
Element mean_of(Element sum, int64_t count) {
  if constexpr (Floating<Element>) {
    // The count is one of the elements' dtype in ATen too.
    const auto divisor =
        static_cast<Computed<Element>>(static_cast<Element>(static_cast<Computed<Element>>(count)));
    return static_cast<Element>(static_cast<Computed<Element>>(sum) / divisor);
  } else {
    const auto whole = static_cast<int64_t>(sum);
    const int64_t quotient = whole / count;
    return static_cast<Element>(quotient - (whole % count != 0 && whole < 0 ? 1 : 0));
  }
}

void scatter_reduce(
    const Tensor& out,
    const Tensor& self,
    int64_t given,
    const Tensor& index,
    const Tensor& src,
    const char* name,
    bool includes_self) {
  check(out, self, &src);
  const Reduction reduction = reduction_of(name);
  const int64_t dim = wrapped_dim(given, self.rank());
  const Tensor where = apart(index, out), from = apart(src, out);
  convert(out, self);
  const Scatter plan(out, dim, where, &from);
  const bool mean = reduction == Reduction::kMean;
  const Tensor counts =
      mean ? Tensor::empty(ScalarType::kInt64, out.sizes_list(), out.strides_list()) : Tensor();
  if (mean) {
    fill(counts, includes_self ? 1 : 0);
  }
  const auto body = [&]<class Element>(Element) {
    auto* const to = out.as<Element>();
    const auto* const source = from.as<const Element>();
    if (!includes_self) {
      const auto start = neutral<Element>(reduction);
      plan.each(where, [&](int64_t at, int64_t) { to[at] = start; });
    }
    plan.each(where, [&](int64_t at, int64_t other) {
      to[at] = combined(reduction, to[at], source[other]);
      if (mean) {
        ++counts.as<int64_t>()[at];
      }
    });
    if (mean) {
      const std::array<const int64_t*, 1> strides = {out.strides()};
      for_rows<1>(out.sizes_list(), strides, [&](auto offsets, int64_t count, auto steps) {
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = offsets[0] + i * steps[0];
          to[at] = mean_of(to[at], std::max<int64_t>(counts.as<int64_t>()[at], 1));
        }
      });
    }
  };
  if (out.dtype() == ScalarType::kBool) {
    body(bool{});
  } else {
    with_number(out.dtype(), body);
  }
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t
aotinative_scatter_out(Handle out, Handle self, int64_t dim, Handle index, Handle source) {
  return served("scatter", [&] { scatter(*out, *self, dim, *index, *source); });
}

AOTI_SERVED int32_t
aotinative_cpu_scatter_src_out(Handle out, Handle self, int64_t dim, Handle index, Handle source) {
  return aotinative_scatter_out(out, self, dim, index, source);
}

AOTI_SERVED int32_t
aotinative_cpu_scatter_value_out(Handle out, Handle self, int64_t dim, Handle index, double value) {
  return served("scatter", [&] { scatter_value(*out, *self, dim, *index, value); });
}

AOTI_SERVED int32_t aotinative_scatter_reduce_out(
    Handle out,
    Handle self,
    int64_t dim,
    Handle index,
    Handle source,
    const char* reduce,
    int32_t includes_self) {
  return served("scatter_reduce", [&] {
    scatter_reduce(*out, *self, dim, *index, *source, reduce, includes_self != 0);
  });
}

AOTI_SERVED int32_t aotinative_cpu_scatter_reduce_two_out(
    Handle out,
    Handle self,
    int64_t dim,
    Handle index,
    Handle source,
    const char* reduce,
    int32_t includes_self) {
  return aotinative_scatter_reduce_out(out, self, dim, index, source, reduce, includes_self);
}
