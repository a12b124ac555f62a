#include <aoti/native/ops/convolution_geometry.h>
#include <aoti/native/ops/elements.h>

#include <algorithm>

namespace aoti::native {

namespace {

// The sums of one output channel of one image.
template <class Element>
void add_channel(
    const PlainConvolution& c, const Element* input, const Element* weight, Element* output) {
  const Geometry& g = c.geometry;
  const int64_t taps = g.taps(), step = g.stride[2];
  const Strip whole = {0, g.outer[0] * g.outer[1], 0, g.outer[2], g.outer[2]};
  const int64_t image = c.transposed ? g.outer_size() : g.inner_size();
  // Weights are (out, in, taps), and those of a transposed convolution (in, out, taps).
  const int64_t next_channel = c.transposed ? c.out_channels * taps : taps;
  for (int64_t channel = 0; channel < c.in_channels; ++channel) {
    const Element* const from = input + channel * image;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Element factor = weight[channel * next_channel + tap];
      for_met(g, whole, tap, [&](int64_t outer, int64_t inner, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          if (c.transposed) {
            output[inner + i * step] += factor * from[outer + i];
          } else {
            output[outer + i] += factor * from[inner + i * step];
          }
        }
      });
    }
  }
}

template <class Element>
void convolve(const PlainConvolution& c) {
  const Geometry& g = c.geometry;
  const int64_t taps = g.taps();
  const int64_t in_image = c.transposed ? g.outer_size() : g.inner_size();
  const int64_t out_image = c.transposed ? g.inner_size() : g.outer_size();
  const auto* const weights = c.weight.as<const Element>();
  for (int64_t item = 0; item < c.batch * c.groups; ++item) {
    const int64_t group = item % c.groups;
    const Element* const input = c.input.as<const Element>() + item * c.in_channels * in_image;
    for (int64_t channel = 0; channel < c.out_channels; ++channel) {
      Element* const output =
          c.output.as<Element>() + (item * c.out_channels + channel) * out_image;
      const Element start = c.bias == nullptr
                                ? Element{}
                                : c.bias->as<const Element>()[group * c.out_channels + channel];
      std::fill_n(output, out_image, start);
      const int64_t first = c.transposed
                                ? (group * c.in_channels * c.out_channels + channel) * taps
                                : (group * c.out_channels + channel) * c.in_channels * taps;
      add_channel(c, input, weights + first, output);
    }
  }
}

}  // namespace

void convolve_plainly(const PlainConvolution& convolution) {
  const auto body = [&]<class Element>(Element) { convolve<Element>(convolution); };
  const ScalarType type = convolution.output.dtype();
  type == ScalarType::kFloat64 ? body(double{}) : with_integer(type, body);
}

}  // namespace aoti::native
