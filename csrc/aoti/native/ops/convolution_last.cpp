// Convolutions with channels innermost, as Inductor lays out images for a CPU.

#include <aoti/native/kernels/gemm/gemm.h>
#include <aoti/native/ops/convolution_geometry.h>
#include <aoti/native/ops/elements.h>

#include <cstring>
#include <memory>

namespace aoti::native {

namespace {

// The outputs of a block of weights, and how much is laid out at a time: elements and positions.
constexpr int64_t kBlock = 48;
constexpr int64_t kRoom = 64 * 1024;
constexpr int64_t kFew = 32, kMany = 256;

void copy_floats(float* to, const float* from, int64_t count) noexcept {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
}

// Weights as (blocks, what a position sees, outputs of a block). A block begins `depth` times the
// number of its first output behind the first one.
std::unique_ptr<float[]> in_blocks(const FloatConvolution& c, int64_t depth) {
  const int64_t outputs = c.out_channels, blocks = (outputs + kBlock - 1) / kBlock;
  std::unique_ptr<float[]> made(new float[static_cast<std::size_t>(c.groups * outputs * depth)]);
  for_parts(c.groups * blocks, kBlock * depth, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const int64_t within = number % blocks * kBlock;
      const int64_t width = std::min(kBlock, outputs - within);
      const int64_t first = (number / blocks * outputs + within) * depth;
      transpose_matrix(width, depth, c.weight + first, depth, made.get() + first, width);
    }
  });
  return made;
}

// What the positions of a strip see along a line of the image, one position after another.
class Lines {
 public:
  Lines(const FloatConvolution& c, int64_t group)
      : g_(c.geometry),
        channels_(c.groups * c.in_channels),
        depth_(c.in_channels),
        first_(group * c.in_channels) {}

  int64_t window() const { return g_.kernel[2] * depth_; }

  // `place` counts the lines of the kernel.
  void lay_out(const float* image, const Strip& strip, int64_t place, float* to) const {
    const int64_t kz = place / g_.kernel[1], ky = place % g_.kernel[1];
    for (int64_t row = strip.begin; row < strip.end; ++row) {
      const int64_t z = row / g_.outer[1] * g_.stride[0] + kz * g_.dilation[0] - g_.padding[0];
      const int64_t y = row % g_.outer[1] * g_.stride[1] + ky * g_.dilation[1] - g_.padding[1];
      const bool there = z >= 0 && z < g_.inner[0] && y >= 0 && y < g_.inner[1];
      const float* const line =
          there ? image + (z * g_.inner[1] + y) * g_.inner[2] * channels_ + first_ : nullptr;
      for (int64_t position = strip.left; position < strip.right; ++position) {
        lay_out(line, position * g_.stride[2] - g_.padding[2], to);
        to += window();
      }
    }
  }

 private:
  void lay_out(const float* line, int64_t first, float* to) const {
    const int64_t taps = g_.kernel[2], step = g_.dilation[2], width = g_.inner[2];
    const bool together = depth_ == channels_ && step == 1;
    if (line != nullptr && together && first >= 0 && first + taps <= width) {
      return copy_floats(to, line + first * channels_, taps * depth_);
    }
    for (int64_t tap = 0; tap < taps; ++tap, to += depth_) {
      const int64_t at = first + tap * step;
      if (line != nullptr && at >= 0 && at < width) {
        copy_floats(to, line + at * channels_, depth_);
      } else {
        std::fill_n(to, depth_, 0.0F);
      }
    }
  }

  const Geometry& g_;
  int64_t channels_, depth_, first_;
};

// A strip of the output. `index` counts groups of all images.
void convolve(
    const FloatConvolution& c,
    const float* blocks,
    int64_t index,
    const Strip& strip,
    std::vector<float>& room) {
  const Geometry& g = c.geometry;
  const int64_t image = index / c.groups, group = index % c.groups, count = strip.size();
  const int64_t depth = c.in_channels * g.taps(), channels = c.groups * c.out_channels;
  const float* const input = c.input + image * g.inner_size() * c.groups * c.in_channels;
  float* const output = c.output + (image * g.outer_size() + strip.first()) * channels;
  const Lines lines(c, group);
  int64_t places = g.kernel[0] * g.kernel[1], window = lines.window(), stride = window;
  const float* seen = input + strip.first() * c.groups * c.in_channels + group * c.in_channels;
  if (g.is_plain()) {
    stride = c.groups * c.in_channels;
  } else {
    room.resize(static_cast<std::size_t>(places * count * window));
    for (int64_t place = 0; place < places; ++place) {
      lines.lay_out(input, strip, place, room.data() + place * count * window);
    }
    seen = room.data();
  }
  for (int64_t within = 0; within < c.out_channels; within += kBlock) {
    const int64_t width = std::min(kBlock, c.out_channels - within);
    const int64_t first = group * c.out_channels + within;
    for (int64_t i = 0; c.bias != nullptr && i < count; ++i) {
      copy_floats(output + i * channels + first, c.bias + first, width);
    }
    for (int64_t place = 0; place < places; ++place) {
      brgemm(
          count,
          width,
          window,
          stride,
          width,
          channels,
          place > 0 || c.bias != nullptr,
          seen + place * count * window,
          blocks + first * depth + place * window * width,
          output + first);
    }
  }
}

// The taps of a kernel that meet the image at one position: what they see, and their weights.
struct Seen {
  const float* image;
  const float* weight;
};

void add_taps(const std::vector<Seen>& taps, int64_t channels, float* to) noexcept {
  typedef float Vector __attribute__((vector_size(16)));  // any CPU has it
  constexpr int64_t kVectors = 4, kLanes = 4;
  int64_t channel = 0;
  for (; channel + kVectors * kLanes <= channels; channel += kVectors * kLanes) {
    Vector sums[kVectors];
    std::memcpy(sums, to + channel, sizeof sums);
    for (const Seen& tap : taps) {
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) {
        Vector image, weight;
        std::memcpy(&image, tap.image + channel + v * kLanes, sizeof image);
        std::memcpy(&weight, tap.weight + channel + v * kLanes, sizeof weight);
        sums[v] += image * weight;
      }
    }
    std::memcpy(to + channel, sums, sizeof sums);
  }
  for (; channel < channels; ++channel) {
    for (const Seen& tap : taps) {
      to[channel] += tap.image[channel] * tap.weight[channel];
    }
  }
}

// A row of positions of a depthwise convolution, all of their channels at a time. `row` counts
// those of all images; `weight` has the channels innermost.
void convolve_row(
    const FloatConvolution& c, const float* weight, int64_t row, std::vector<Seen>& seen) {
  const Geometry& g = c.geometry;
  const int64_t channels = c.groups, rows = g.outer[0] * g.outer[1];
  const int64_t z = row % rows / g.outer[1], y = row % g.outer[1];
  const float* const image = c.input + row / rows * g.inner_size() * channels;
  float* to = c.output + row * g.outer[2] * channels;
  for (int64_t x = 0; x < g.outer[2]; ++x, to += channels) {
    seen.clear();
    const float* factors = weight;
    for (int64_t kz = 0; kz < g.kernel[0]; ++kz) {
      const int64_t at_z = z * g.stride[0] + kz * g.dilation[0] - g.padding[0];
      for (int64_t ky = 0; ky < g.kernel[1]; ++ky) {
        const int64_t at_y = y * g.stride[1] + ky * g.dilation[1] - g.padding[1];
        const bool there = at_z >= 0 && at_z < g.inner[0] && at_y >= 0 && at_y < g.inner[1];
        const int64_t line = (at_z * g.inner[1] + at_y) * g.inner[2];
        for (int64_t kx = 0; kx < g.kernel[2]; ++kx, factors += channels) {
          const int64_t at_x = x * g.stride[2] + kx * g.dilation[2] - g.padding[2];
          if (there && at_x >= 0 && at_x < g.inner[2]) {
            seen.push_back({image + (line + at_x) * channels, factors});
          }
        }
      }
    }
    if (c.bias == nullptr) {
      std::fill_n(to, channels, 0.0F);
    } else {
      copy_floats(to, c.bias, channels);
    }
    add_taps(seen, channels, to);
  }
}

// A kernel for each channel.
void convolve_depthwise(const FloatConvolution& c) {
  const Geometry& g = c.geometry;
  const int64_t channels = c.groups, taps = g.taps();
  const std::unique_ptr<float[]> weight(new float[static_cast<std::size_t>(channels * taps)]);
  transpose_matrix(channels, taps, c.weight, taps, weight.get(), channels);
  const int64_t work = g.outer[2] * channels * taps / 4;
  for_parts(c.batch * g.outer[0] * g.outer[1], work, [&](int64_t begin, int64_t end) {
    std::vector<Seen> seen;
    seen.reserve(static_cast<std::size_t>(taps));
    for (int64_t row = begin; row < end; ++row) {
      convolve_row(c, weight.get(), row, seen);
    }
  });
}

}  // namespace

void convolve_last(const FloatConvolution& c) {
  if (c.in_channels == 1 && c.out_channels == 1) {
    return convolve_depthwise(c);
  }
  const Geometry& g = c.geometry;
  const int64_t depth = c.in_channels * g.taps();
  const std::unique_ptr<float[]> blocks = in_blocks(c, depth);
  const Strips strips(g, std::clamp(kRoom / depth, kFew, kMany));
  const int64_t each = strips.count(), work = depth * c.out_channels * g.outer_size() / each;
  for_parts(c.batch * c.groups * each, work / 8, [&](int64_t begin, int64_t end) {
    std::vector<float> room;
    for (int64_t piece = begin; piece < end; ++piece) {
      convolve(c, blocks.get(), piece / each, strips[piece % each], room);
    }
  });
}

}  // namespace aoti::native
