// Fourier transforms, as ATen's with MKL (aten/src/ATen/native/mkl/SpectralOps.cpp), in double.

#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace aoti::native {

namespace {

using Number = std::complex<double>;

Number times(Number one, Number other) {
  return {
      one.real() * other.real() - one.imag() * other.imag(),
      one.real() * other.imag() + one.imag() * other.real()};
}

// exp(i * pi * share), for a share of a circle that integers give exactly.
Number turned(int64_t numerator, int64_t denominator) {
  const double angle =
      std::numbers::pi * static_cast<double>(numerator) / static_cast<double>(denominator);
  return {std::cos(angle), std::sin(angle)};
}

// A transform of a power of two, in place.
class Powers {
 public:
  explicit Powers(std::size_t size) : roots_(size / 2) {
    for (std::size_t i = 0; i < roots_.size(); ++i) {
      roots_[i] = turned(-2 * static_cast<int64_t>(i), static_cast<int64_t>(size));
    }
  }

  void operator()(std::vector<Number>& values) const {
    const std::size_t size = values.size();
    for (std::size_t i = 1, j = 0; i < size; ++i) {  // in the order of reversed bits
      std::size_t bit = size >> 1;
      for (; (j & bit) != 0; bit >>= 1) {
        j ^= bit;
      }
      j ^= bit;
      if (i < j) {
        std::swap(values[i], values[j]);
      }
    }
    for (std::size_t half = 1; half < size; half *= 2) {
      const std::size_t step = size / (2 * half);
      for (std::size_t first = 0; first < size; first += 2 * half) {
        for (std::size_t i = 0; i < half; ++i) {
          const Number one = values[first + i];
          const Number other = times(values[first + half + i], roots_[i * step]);
          values[first + i] = one + other;
          values[first + half + i] = one - other;
        }
      }
    }
  }

 private:
  std::vector<Number> roots_;
};

std::size_t power_above(std::size_t size) {
  std::size_t power = 1;
  while (power < size) {
    power *= 2;
  }
  return power;
}

// A forward transform of any size: as a convolution with a chirp (Bluestein) if it is no power of
// two.
class Transform {
 public:
  explicit Transform(int64_t size)
      : size_(static_cast<std::size_t>(size)),
        room_(power_above(size_) == size_ ? size_ : power_above(2 * size_ - 1)),
        powers_(room_) {
    if (room_ == size_) {
      return;
    }
    chirp_.resize(size_);
    filter_.assign(room_, Number{});
    for (std::size_t i = 0; i < size_; ++i) {
      const auto square = static_cast<int64_t>(
          static_cast<unsigned __int128>(i) * i % (2 * size_));  // a turn is 2 * size
      chirp_[i] = turned(-square, size);
      filter_[i] = std::conj(chirp_[i]);
      filter_[(room_ - i) % room_] = filter_[i];
    }
    powers_(filter_);
  }

  void operator()(std::vector<Number>& values) const {
    if (room_ == size_) {
      return powers_(values);
    }
    std::vector<Number> work(room_, Number{});
    for (std::size_t i = 0; i < size_; ++i) {
      work[i] = times(values[i], chirp_[i]);
    }
    powers_(work);
    for (std::size_t i = 0; i < room_; ++i) {  // conjugated, so that the way back is a forward one
      work[i] = std::conj(times(work[i], filter_[i]));
    }
    powers_(work);
    const double scale = 1 / static_cast<double>(room_);
    for (std::size_t i = 0; i < size_; ++i) {
      values[i] = times(std::conj(work[i]) * scale, chirp_[i]);
    }
  }

 private:
  std::size_t size_, room_;
  Powers powers_;
  std::vector<Number> chirp_, filter_;
};

// Transforms all lines of a tensor of complex128 in C order along a dimension.
void transform(const Tensor& tensor, int64_t dim, bool forward) {
  const Around around(tensor.sizes_list(), dim);
  const Transform line_of(around.size);
  auto* const data = tensor.as<Number>();
  const auto turn = [=](Number value) { return forward ? value : std::conj(value); };
  for_parts(around.outer * around.inner, around.size * 16, [&](int64_t begin, int64_t end) {
    std::vector<Number> values(static_cast<std::size_t>(around.size));
    for (int64_t line = begin; line < end; ++line) {
      Number* const first =
          data + line / around.inner * around.size * around.inner + line % around.inner;
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = turn(first[static_cast<int64_t>(i) * around.inner]);
      }
      line_of(values);
      for (std::size_t i = 0; i < values.size(); ++i) {
        first[static_cast<int64_t>(i) * around.inner] = turn(values[i]);
      }
    }
  });
}

std::vector<int64_t> dims_of(const Tensor& self, Extents given) {
  std::vector<int64_t> dims;
  for (const int64_t dim : given) {
    dims.push_back(wrapped_dim(dim, self.rank()));
    if (self.rank() == 0 || self.size(dim) == 0 ||
        std::count(dims.begin(), dims.end(), dims.back()) != 1) {
      throw std::invalid_argument("a transform of a dimension that is empty, or named twice");
    }
  }
  return dims;
}

// MKL's results lie in the order of the strides of what it transforms, the transformed dimensions
// innermost; the last of them stays so for a transform of real numbers.
std::vector<int64_t> strides_of(
    const Tensor& self, Extents sizes, std::vector<int64_t> dims, bool keeps_last) {
  const auto further = [&](int64_t one, int64_t other) {
    return self.strides()[one] > self.strides()[other];
  };
  std::sort(dims.begin(), dims.end() - (keeps_last ? 1 : 0), further);
  // Of equal strides, the order is what ATen's calls of the same algorithms make of it.
  std::vector<int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rest = std::partition(order.begin(), order.end(), [&](int64_t dim) {
    return std::find(dims.begin(), dims.end(), dim) == dims.end();
  });
  order.erase(rest, order.end());
  std::sort(order.begin(), order.end(), further);
  order.insert(order.end(), dims.begin(), dims.end());
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (std::size_t i = order.size(); i-- > 0;) {
    const auto dim = static_cast<std::size_t>(order[i]);
    strides[dim] = stride;
    stride *= std::max<int64_t>(sizes[dim], 1);
  }
  return strides;
}

double scale_of(const Tensor& self, const std::vector<int64_t>& dims, int64_t normalization) {
  double count = 1;
  for (const int64_t dim : dims) {
    count *= static_cast<double>(self.size(dim));
  }
  return normalization == 1 ? 1 / std::sqrt(count) : normalization == 2 ? 1 / count : 1;
}

// The transform of `self` in complex128 and C order.
Tensor transformed(
    const Tensor& self, const std::vector<int64_t>& dims, int64_t normalization, bool forward) {
  Tensor work = Tensor::empty(ScalarType::kComplex128, self.sizes_list());
  convert(work, self);
  for (const int64_t dim : dims) {
    transform(work, dim, forward);
  }
  const double scale = scale_of(self, dims, normalization);
  for (int64_t i = 0; i < work.numel(); ++i) {
    work.as<Number>()[i] *= scale;
  }
  return work;
}

Tensor real_to_complex(const Tensor& self, Extents given, int64_t normalization, bool onesided) {
  const bool wide = self.dtype() == ScalarType::kFloat64;
  if (!wide && self.dtype() != ScalarType::kFloat32) {
    refuse_dtype(self.dtype());
  }
  const std::vector<int64_t> dims = dims_of(self, given);
  if (dims.empty()) {
    throw std::invalid_argument("a transform of no dimension");
  }
  const Tensor work = transformed(self, dims, normalization, true);
  std::vector<int64_t> sizes(self.sizes(), self.sizes() + self.rank());
  int64_t& last = sizes[static_cast<std::size_t>(dims.back())];
  last = onesided ? last / 2 + 1 : last;
  Tensor made = Tensor::empty(
      wide ? ScalarType::kComplex128 : ScalarType::kComplex64,
      sizes,
      strides_of(self, sizes, dims, true));
  convert(made, Tensor(work.storage(), work.dtype(), sizes, work.strides_list(), 0));
  return made;
}

Tensor complex_to_complex(const Tensor& self, Extents given, int64_t normalization, bool forward) {
  if (self.dtype() != ScalarType::kComplex64 && self.dtype() != ScalarType::kComplex128) {
    refuse_dtype(self.dtype());
  }
  const std::vector<int64_t> dims = dims_of(self, given);
  if (dims.empty()) {
    return clone(self);
  }
  Tensor made = Tensor::empty(
      self.dtype(), self.sizes_list(), strides_of(self, self.sizes_list(), dims, false));
  convert(made, transformed(self, dims, normalization, forward));
  return made;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the functions below are of no namespace

AOTI_SERVED int32_t aotinative_cpu__fft_r2c(
    Handle self,
    const int64_t* dims,
    int64_t count,
    int64_t normalization,
    int32_t onesided,
    Handle* made) {
  return served("_fft_r2c", [&] {
    hand_over(real_to_complex(*self, extents(dims, count), normalization, onesided != 0), made);
  });
}

AOTI_SERVED int32_t aotinative_cpu__fft_c2c(
    Handle self,
    const int64_t* dims,
    int64_t count,
    int64_t normalization,
    int32_t forward,
    Handle* made) {
  return served("_fft_c2c", [&] {
    hand_over(complex_to_complex(*self, extents(dims, count), normalization, forward != 0), made);
  });
}
