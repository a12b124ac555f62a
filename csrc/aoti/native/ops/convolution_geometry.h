#pragma once

// Which positions of two images meet in a convolution of one to three dimensions.

#include <aoti/native/shim/tensor.h>

#include <algorithm>
#include <array>
#include <utility>

namespace aoti::native {

constexpr std::size_t kDims = 3;
using Spatial = std::array<int64_t, kDims>;  // depth, height, width; dimensions that miss are 1

inline int64_t product(const Spatial& sizes) { return sizes[0] * sizes[1] * sizes[2]; }

// The last dimensions of a list, with `fill` for those that it does not have.
inline Spatial spatial(Extents list, int64_t fill) {
  Spatial result = {fill, fill, fill};
  std::copy(list.begin(), list.end(), result.end() - static_cast<int64_t>(list.size()));
  return result;
}

// The map between the positions of two images: `outer` position o and tap t of the kernel meet
// `inner` position o * stride + t * dilation - padding. The output of a convolution is the outer
// one, and that of a transposed convolution the inner one.
struct Geometry {
  Spatial inner, outer, kernel, stride, padding, dilation;

  int64_t inner_size() const { return product(inner); }
  int64_t outer_size() const { return product(outer); }
  int64_t taps() const { return product(kernel); }

  bool is_plain() const {  // each position meets itself alone
    return taps() == 1 && stride == Spatial{1, 1, 1} && padding == Spatial{0, 0, 0};
  }
};

// The outer positions [first, last) of a dimension that meet an inner one at this tap.
inline std::pair<int64_t, int64_t> met(const Geometry& g, std::size_t dim, int64_t tap) {
  const int64_t shift = tap * g.dilation[dim] - g.padding[dim], stride = g.stride[dim];
  const int64_t first = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
  const int64_t room = g.inner[dim] - shift;
  const int64_t last = room <= 0 ? 0 : (room + stride - 1) / stride;
  return {
      std::min(first, g.outer[dim]), std::clamp(last, std::min(first, g.outer[dim]), g.outer[dim])};
}

// Outer positions one after another, so few that what is unfolded of them fits into a cache: whole
// rows, or a part of one row.
struct Strip {
  int64_t begin, end;   // rows
  int64_t left, right;  // positions of a row
  int64_t row;          // all positions of a row of the image

  int64_t width() const { return right - left; }
  int64_t first() const { return begin * row + left; }
  int64_t size() const { return (end - begin) * width(); }
};

// The strips of an image, each of about so many positions.
class Strips {
 public:
  Strips(const Geometry& g, int64_t positions)
      : rows_(g.outer[0] * g.outer[1]),
        row_(g.outer[2]),
        width_(std::clamp<int64_t>(positions, 1, std::max<int64_t>(row_, 1))),
        height_(width_ < row_ ? 1 : std::clamp<int64_t>(positions / width_, 1, rows_)),
        across_((row_ + width_ - 1) / width_) {}

  int64_t count() const { return (rows_ + height_ - 1) / height_ * across_; }
  Strip operator[](int64_t index) const {
    const int64_t begin = index / across_ * height_, left = index % across_ * width_;
    return {begin, std::min(rows_, begin + height_), left, std::min(row_, left + width_), row_};
  }

 private:
  int64_t rows_, row_, width_, height_, across_;
};

// Calls body(outer offset in the strip, inner offset, count) for the rows of positions that meet at
// a tap. Inner offsets in a row lie the stride of the last dimension apart.
template <class Body>
void for_met(const Geometry& g, const Strip& strip, int64_t tap, const Body& body) {
  const Spatial taps = {
      tap / (g.kernel[1] * g.kernel[2]), tap / g.kernel[2] % g.kernel[1], tap % g.kernel[2]};
  std::array<std::pair<int64_t, int64_t>, kDims> ranges;
  Spatial shift;
  for (std::size_t dim = 0; dim < kDims; ++dim) {
    ranges[dim] = met(g, dim, taps[dim]);
    shift[dim] = taps[dim] * g.dilation[dim] - g.padding[dim];
  }
  const int64_t first = std::max(ranges[2].first, strip.left);
  const int64_t last = std::min(ranges[2].second, strip.right);
  if (first >= last) {
    return;
  }
  for (int64_t z = ranges[0].first; z < ranges[0].second; ++z) {
    const int64_t begin = std::max(ranges[1].first, strip.begin - z * g.outer[1]);
    const int64_t end = std::min(ranges[1].second, strip.end - z * g.outer[1]);
    for (int64_t y = begin; y < end; ++y) {
      const int64_t row = (z * g.stride[0] + shift[0]) * g.inner[1] + y * g.stride[1] + shift[1];
      body(
          (z * g.outer[1] + y - strip.begin) * strip.width() + first - strip.left,
          row * g.inner[2] + first * g.stride[2] + shift[2],
          last - first);
    }
  }
}

// A convolution of float32. The numbers of channels are those of one group; `bias` may be null.
struct FloatConvolution {
  Geometry geometry;
  int64_t batch, groups, in_channels, out_channels;
  const float* input;
  const float* weight;
  const float* bias;
  float* output;
};

// With the channels of images and weights innermost; not transposed.
void convolve_last(const FloatConvolution& convolution);

// A convolution of float64 or integers, which models hardly use: images in C order, tap by tap.
struct PlainConvolution {
  Geometry geometry;
  bool transposed;
  int64_t batch, groups, in_channels, out_channels;  // channels of a group
  const Tensor& input;
  const Tensor& weight;
  const Tensor* bias;
  const Tensor& output;
};
void convolve_plainly(const PlainConvolution& convolution);

}  // namespace aoti::native
