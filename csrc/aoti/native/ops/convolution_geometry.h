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

// Rows of outer positions, one after another: what is unfolded at a time fits into a cache.
struct Strip {
  int64_t begin, end;  // rows
  int64_t width;       // positions of a row

  int64_t first() const { return begin * width; }
  int64_t size() const { return (end - begin) * width; }
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
  const auto [first, last] = ranges[2];
  if (first == last) {
    return;
  }
  for (int64_t z = ranges[0].first; z < ranges[0].second; ++z) {
    const int64_t begin = std::max(ranges[1].first, strip.begin - z * g.outer[1]);
    const int64_t end = std::min(ranges[1].second, strip.end - z * g.outer[1]);
    for (int64_t y = begin; y < end; ++y) {
      const int64_t row = (z * g.stride[0] + shift[0]) * g.inner[1] + y * g.stride[1] + shift[1];
      body(
          (z * g.outer[1] + y) * g.outer[2] + first - strip.first(),
          row * g.inner[2] + first * g.stride[2] + shift[2],
          last - first);
    }
  }
}

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
