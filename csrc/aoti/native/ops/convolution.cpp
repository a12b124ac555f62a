// Convolutions of one to three dimensions, as ATen's (aten/src/ATen/native/Convolution.cpp).

#include <aoti/native/kernels/gemm/gemm.h>
#include <aoti/native/ops/convert.h>
#include <aoti/native/ops/convolution_geometry.h>
#include <aoti/native/ops/elements.h>
#include <aoti/native/ops/layout.h>
#include <aoti/native/shim/errors.h>
#include <aoti/native/shim/symbols.h>

#include <algorithm>
#include <cstring>

namespace aoti::native {

namespace {

struct Parameters {
  std::vector<int64_t> stride, padding, dilation, output_padding;
  bool transposed;
  int64_t groups;
};

// One image of one group: `columns` has a row for each channel and tap, of all positions of a
// strip.
void unfold(
    const Geometry& g, const Strip& strip, const float* image, int64_t channels, float* columns) {
  const int64_t size = strip.size(), step = g.stride[2];
  for (int64_t row = 0; row < channels * g.taps(); ++row) {
    float* const to = columns + row * size;
    const float* const from = image + row / g.taps() * g.inner_size();
    std::fill_n(to, size, 0.0F);
    for_met(g, strip, row % g.taps(), [&](int64_t outer, int64_t inner, int64_t count) {
      if (step == 1) {
        std::memcpy(to + outer, from + inner, static_cast<std::size_t>(count) * sizeof(float));
      } else {
        for (int64_t i = 0; i < count; ++i) {
          to[outer + i] = from[inner + i * step];
        }
      }
    });
  }
}

// The other way: adds what `columns` has to the image.
void fold(
    const Geometry& g, const Strip& strip, const float* columns, int64_t channels, float* image) {
  const int64_t size = strip.size(), step = g.stride[2];
  for (int64_t row = 0; row < channels * g.taps(); ++row) {
    const float* const from = columns + row * size;
    float* const to = image + row / g.taps() * g.inner_size();
    for_met(g, strip, row % g.taps(), [&](int64_t outer, int64_t inner, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        to[inner + i * step] += from[outer + i];
      }
    });
  }
}

// What is unfolded at a time, so that it stays in the second cache: rows of columns, and elements.
constexpr int64_t kDepth = 1024;
constexpr int64_t kRoom = 64 * 1024;
constexpr int64_t kOutputs = 48;  // rows of the output that are computed at a time

Strips strips_of(const Geometry& g, int64_t depth) {
  return Strips(g, kRoom / std::clamp<int64_t>(depth, 64, kDepth));
}

// The bias, at `count` positions of each channel.
void start(
    const FloatConvolution& p, int64_t index, int64_t image_size, int64_t count, float* output) {
  const int64_t first = index % p.groups * p.out_channels;
  for (int64_t channel = 0; channel < p.out_channels; ++channel) {
    const float value = p.bias == nullptr ? 0.0F : p.bias[first + channel];
    std::fill_n(output + channel * image_size, count, value);
  }
}

// A strip of the output. `index` counts groups of all images.
void convolve(
    const FloatConvolution& p, int64_t index, const Strip& strip, std::vector<float>& columns) {
  const Geometry& g = p.geometry;
  const int64_t size = g.outer_size(), depth = p.in_channels * g.taps(), count = strip.size();
  const float* const input = p.input + index * p.in_channels * g.inner_size();
  const float* const weight = p.weight + index % p.groups * p.out_channels * depth;
  float* const output = p.output + index * p.out_channels * size + strip.first();
  start(p, index, size, count, output);
  if (p.in_channels == 1 && p.out_channels <= 4) {  // too few channels for a product of matrices
    for (int64_t row = 0; row < p.out_channels * g.taps(); ++row) {
      const float factor = weight[row];
      float* const to = output + row / g.taps() * size;
      const int64_t step = g.stride[2];
      for_met(g, strip, row % g.taps(), [&](int64_t outer, int64_t inner, int64_t length) {
        for (int64_t i = 0; i < length; ++i) {
          to[outer + i] += factor * input[inner + i * step];
        }
      });
    }
    return;
  }
  if (g.is_plain()) {
    const Matrix matrix = {input + strip.first(), size, 1};
    return gemm(p.out_channels, count, depth, 1, {weight, depth, 1}, matrix, 1, output, size);
  }
  const int64_t some = std::clamp<int64_t>(kDepth / g.taps(), 1, p.in_channels);  // channels
  columns.resize(static_cast<std::size_t>(some * g.taps() * count));
  for (int64_t channel = 0; channel < p.in_channels; channel += some) {
    const int64_t channels = std::min(some, p.in_channels - channel);
    unfold(g, strip, input + channel * g.inner_size(), channels, columns.data());
    for (int64_t row = 0; row < p.out_channels; row += kOutputs) {
      brgemm(
          std::min(kOutputs, p.out_channels - row),
          count,
          channels * g.taps(),
          depth,
          count,
          size,
          true,
          weight + row * depth + channel * g.taps(),
          columns.data(),
          output + row * size);
    }
  }
}

void convolve_transposed(const FloatConvolution& p, int64_t index, std::vector<float>& columns) {
  const Geometry& g = p.geometry;
  const int64_t size = g.outer_size(), rows = p.out_channels * g.taps();
  const float* const input = p.input + index * p.in_channels * size;
  const float* const weight = p.weight + index % p.groups * p.in_channels * rows;
  float* const output = p.output + index * p.out_channels * g.inner_size();
  start(p, index, g.inner_size(), g.inner_size(), output);
  const Strips strips = strips_of(g, rows);
  for (int64_t i = 0; i < strips.count(); ++i) {
    const Strip strip = strips[i];
    const int64_t count = strip.size();
    columns.resize(static_cast<std::size_t>(rows * count));
    gemm(
        rows,
        count,
        p.in_channels,
        1,
        {weight, 1, rows},
        {input + strip.first(), size, 1},
        0,
        columns.data(),
        count);
    fold(g, strip, columns.data(), p.out_channels, output);
  }
}

// Few pieces share out each product among threads; many are shared out themselves.
void run(const FloatConvolution& p, bool transposed) {
  const Geometry& g = p.geometry;
  const Strips strips =
      g.is_plain() ? Strips(g, g.outer_size()) : strips_of(g, p.in_channels * g.taps());
  const int64_t each = transposed ? 1 : strips.count(), pieces = p.batch * p.groups * each;
  const auto some = [&](int64_t begin, int64_t end) {
    std::vector<float> columns;
    for (int64_t piece = begin; piece < end; ++piece) {
      if (transposed) {
        convolve_transposed(p, piece, columns);
      } else {
        convolve(p, piece / each, strips[piece % each], columns);
      }
    }
  };
  if (pieces < threads_here()) {
    return some(0, pieces);
  }
  for_parts(pieces, p.out_channels * p.in_channels * g.outer_size() / each * g.taps() / 8, some);
}

// `list`, or its one element for all dimensions.
std::vector<int64_t> for_each_dim(Extents list, int64_t dims, const char* name) {
  std::vector<int64_t> result(list.begin(), list.end());
  if (list.size() == 1) {
    result.assign(static_cast<std::size_t>(dims), list[0]);
  }
  if (static_cast<int64_t>(result.size()) != dims) {
    throw std::invalid_argument(std::string("there are not as many of ") + name + " as dimensions");
  }
  return result;
}

void check(
    const Tensor& input, const Tensor& weight, const Tensor* bias, const Parameters& parameters) {
  const int64_t rank = input.rank();
  if (rank < 3 || rank > 5 || weight.rank() != rank) {
    throw std::invalid_argument("a convolution has one to three dimensions, and a batch");
  }
  if (weight.dtype() != input.dtype() || (bias != nullptr && bias->dtype() != input.dtype())) {
    throw std::invalid_argument("a convolution takes tensors of one dtype");
  }
  const auto less = [](const std::vector<int64_t>& list, int64_t least) {
    return std::any_of(list.begin(), list.end(), [=](int64_t value) {
      return value < least || value > INT32_MAX;  // no sum of products of them overflows
    });
  };
  const int64_t groups = parameters.groups;
  if (groups < 1 || less(parameters.stride, 1) || less(parameters.dilation, 1) ||
      less(parameters.padding, 0) || less(parameters.output_padding, 0)) {
    throw std::invalid_argument("a parameter of a convolution is out of range");
  }
  const bool transposed = parameters.transposed;
  const int64_t outputs = transposed ? weight.size(1) * groups : weight.size(0);
  const bool fits = (transposed ? weight.size(0) == input.size(1) && input.size(1) % groups == 0
                                : weight.size(1) * groups == input.size(1)) &&
                    outputs % groups == 0 && outputs >= groups &&
                    (bias == nullptr || (bias->rank() == 1 && bias->size(0) == outputs));
  if (!fits) {
    throw std::invalid_argument("the channels of a convolution do not fit");
  }
}

Geometry geometry_of(const Tensor& input, const Tensor& weight, const Parameters& parameters) {
  const auto sizes = [](const Tensor& tensor) {
    return spatial(tensor.sizes_list().subspan(2), 1);
  };
  Geometry g{};
  g.kernel = sizes(weight);
  g.stride = spatial(parameters.stride, 1);
  g.padding = spatial(parameters.padding, 0);
  g.dilation = spatial(parameters.dilation, 1);
  const Spatial further = spatial(parameters.output_padding, 0);
  (parameters.transposed ? g.outer : g.inner) = sizes(input);
  for (std::size_t dim = 0; dim < kDims; ++dim) {
    const int64_t span = g.dilation[dim] * (g.kernel[dim] - 1) + 1;
    int64_t& made = parameters.transposed ? g.inner[dim] : g.outer[dim];
    made = parameters.transposed
               ? (g.outer[dim] - 1) * g.stride[dim] - 2 * g.padding[dim] + span + further[dim]
               : (g.inner[dim] + 2 * g.padding[dim] - span) / g.stride[dim] + 1;
    if (!parameters.transposed && g.inner[dim] + 2 * g.padding[dim] < span) {
      throw std::invalid_argument("the kernel of a convolution is larger than its input");
    }
    if (made < (parameters.transposed ? 1 : 0) || g.kernel[dim] < 1) {
      throw std::invalid_argument("the output of a convolution would be empty");
    }
  }
  return g;
}

// The last dimension as two, as ATen has a convolution of one dimension computed.
Tensor with_height(const Tensor& tensor) {
  const int64_t* const n = tensor.sizes();
  const int64_t* const s = tensor.strides();
  const int64_t sizes[] = {n[0], n[1], 1, n[2]}, strides[] = {s[0], s[1], s[2] * n[2], s[2]};
  return Tensor(tensor.storage(), tensor.dtype(), sizes, strides, tensor.offset());
}

// Whether oneDNN has code for a type of 16 bits on this CPU, by ATen's mkldnn_bf16_device_check and
// mkldnn_fp16_device_check.
bool onednn_has([[maybe_unused]] ScalarType type) noexcept {
#if defined(__x86_64__)
  static const bool brain = __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl");
  static const bool half = __builtin_cpu_supports("avx512fp16");
  return type == ScalarType::kBFloat16 ? brain : type == ScalarType::kFloat16 && half;
#else
  return false;
#endif
}

// Whether ATen leaves a convolution of three dimensions to oneDNN, which keeps channels_last where
// its own code does not (ConvParams::use_mkldnn).
bool keeps_channels_last(const Tensor& input, const Tensor& weight, const Parameters& parameters) {
  const auto any = [](const std::vector<int64_t>& list) {
    return std::any_of(list.begin(), list.end(), [](int64_t value) { return value != 1; });
  };
  const int64_t groups = parameters.groups;
  if (parameters.transposed) {
    for (std::size_t dim = 0; dim < parameters.stride.size(); ++dim) {
      if (parameters.output_padding[dim] >= parameters.stride[dim]) {
        return false;
      }
    }
  }
  if (input.dtype() != ScalarType::kFloat32) {
    return onednn_has(input.dtype());
  }
  const bool suits = any(parameters.stride) || any(parameters.dilation) || input.size(0) >= 16 ||
                     weight.size(-1) != 1 || weight.size(-2) != 1 || threads_here() > 1;
  return suits && (groups > 1 || (weight.size(-1) > 3 && weight.size(-2) > 3) ||
                   input.size(0) > 1 || count_of(input.sizes_list().first(4)) > 20480);
}

Tensor with_channels_last(const Tensor& tensor) {
  const std::vector<int64_t> strides = channels_last_strides(tensor.sizes_list());
  if (std::equal(strides.begin(), strides.end(), tensor.strides())) {
    return tensor;
  }
  Tensor made = Tensor::empty(tensor.dtype(), tensor.sizes_list(), strides);
  copy(made, tensor);
  return made;
}

Tensor make_output(
    const Tensor& input,
    const Tensor& weight,
    const Parameters& parameters,
    const std::vector<int64_t>& sizes) {
  // Without oneDNN, ATen joins the results of the groups. If a group's images have one element,
  // their strides tell no order.
  const bool of_some = count_of(Extents(sizes).subspan(1)) != parameters.groups;
  if (input.rank() == 3) {
    const Tensor image = with_height(in_c_order(input)), filter = with_height(weight);
    const bool last = (suggests_channels_last(image) || suggests_channels_last(filter)) &&
                      (of_some || keeps_channels_last(image, filter, parameters));
    const int64_t strides[] = {sizes[1] * sizes[2], 1, sizes[1]};
    return last ? Tensor::empty(input.dtype(), sizes, strides)
                : Tensor::empty(input.dtype(), sizes);
  }
  const bool last =
      (suggests_channels_last(input) || suggests_channels_last(weight)) &&
      ((input.rank() == 4 && of_some) || keeps_channels_last(input, weight, parameters));
  return last ? Tensor::empty(input.dtype(), sizes, channels_last_strides(sizes))
              : Tensor::empty(input.dtype(), sizes);
}

Tensor convolution(
    const Tensor& input, const Tensor& weight, const Tensor* bias, const Parameters& parameters) {
  check(input, weight, bias, parameters);
  const Geometry geometry = geometry_of(input, weight, parameters);
  const int64_t groups = parameters.groups;
  const bool transposed = parameters.transposed;
  const int64_t channels = transposed ? weight.size(1) * groups : weight.size(0);
  std::vector<int64_t> sizes = {input.size(0), channels};
  const Spatial& image = transposed ? geometry.inner : geometry.outer;
  sizes.insert(sizes.end(), image.end() - (input.rank() - 2), image.end());
  Tensor made = make_output(input, weight, parameters, sizes);
  if (made.numel() == 0) {
    return made;
  }
  // The kernels are for float32, in which the 16-bit types are computed, too.
  const bool halves =
      input.dtype() == ScalarType::kBFloat16 || input.dtype() == ScalarType::kFloat16;
  const ScalarType type = halves ? ScalarType::kFloat32 : input.dtype();
  const bool last = input.dtype() == ScalarType::kFloat32 && !transposed && input.rank() > 3 &&
                    !made.is_contiguous();
  const auto ordered = [&](const Tensor& tensor) {
    return last ? with_channels_last(tensor) : in_c_order(converted(tensor, type));
  };
  const Tensor from = ordered(input), by = ordered(weight);
  const Tensor added = bias == nullptr ? Tensor() : in_c_order(converted(*bias, type));
  Tensor to = (made.is_contiguous() && !halves) || last ? made : Tensor::empty(type, sizes);
  const int64_t in_channels = input.size(1) / groups, out_channels = channels / groups;
  if (type == ScalarType::kFloat32) {
    const FloatConvolution problem = {
        geometry,
        input.size(0),
        groups,
        in_channels,
        out_channels,
        from.as<const float>(),
        by.as<const float>(),
        bias == nullptr ? nullptr : added.as<const float>(),
        to.as<float>(),
    };
    last ? convolve_last(problem) : run(problem, transposed);
  } else {
    convolve_plainly(
        {geometry,
         transposed,
         input.size(0),
         groups,
         in_channels,
         out_channels,
         from,
         by,
         bias == nullptr ? nullptr : &added,
         to});
  }
  if (to.data() != made.data()) {
    convert(made, to);
  }
  return made;
}

}  // namespace

}  // namespace aoti::native

using namespace aoti::native;  // the function below is of no namespace

AOTI_SERVED int32_t aotinative_cpu_convolution(
    Handle input,
    Handle weight,
    const Handle* bias,
    const int64_t* stride,
    int64_t stride_count,
    const int64_t* padding,
    int64_t padding_count,
    const int64_t* dilation,
    int64_t dilation_count,
    int32_t transposed,
    const int64_t* output_padding,
    int64_t output_padding_count,
    int64_t groups,
    Handle* made) {
  return served("convolution", [&] {
    const int64_t dims = weight->rank() - 2;
    const Parameters parameters = {
        for_each_dim(extents(stride, stride_count), dims, "stride"),
        for_each_dim(extents(padding, padding_count), dims, "padding"),
        for_each_dim(extents(dilation, dilation_count), dims, "dilation"),
        for_each_dim(extents(output_padding, output_padding_count), dims, "output_padding"),
        transposed != 0,
        groups,
    };
    const Tensor* const added = bias == nullptr ? nullptr : *bias;
    hand_over(convolution(*input, *weight, added, parameters), made);
  });
}
