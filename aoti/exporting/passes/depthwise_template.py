"""The C++ kernel of depthwise convolutions, which this module gives to Inductor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._inductor import lowering

from aoti.exporting.passes.kernel_sources import FOLLOWING, GEOMETRY, PRODUCTS, THREADS
from aoti.exporting.passes.kernel_templates import contiguous, geometry, of_pixels

# At most so many channels and pixels of a depthwise convolution are computed at a time.
_CHANNELS, _LINE = 64, 32

# Computes a part of a line of outputs at a time, in some channels: the sums of up to eight pixels
# stay in registers. Pixels whose windows meet zeros are computed one by one.
_DEPTHWISE = (
    r"""
{{template.header().getvalue()}}

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    using Vector = at::vec::Vectorized<float>;
    constexpr int64_t lanes = Vector::size();
    constexpr int64_t channels = {{channels}}, outputs = channels;
    constexpr int64_t most_columns = {{most_channels}};
    constexpr int64_t blocks = (channels + most_columns - 1) / most_columns;
"""
    + GEOMETRY
    + r"""
    const float* w = &{{kernel.index(W, ["0", "0", "0"])}};
    const int64_t parts = (columns + {{most_pixels}} - 1) / {{most_pixels}};

    // Of a kernel's places along a side, those that meet the image: [begin, end).
    struct Places {
        int64_t begin, end;
    };
    const auto places = [](int64_t first, int64_t count, int64_t step, int64_t size) {
        const int64_t before = first < 0 ? (-first + step - 1) / step : 0;
        const int64_t met = first < size ? (size - first + step - 1) / step : 0;
        return Places{std::min(before, count), std::min(met, count)};
    };
"""
    + THREADS
    + r"""
    {
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [most_pixels, most_channels]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for
{%- endif %}
        for (int64_t number = 0; number < batch * rows * parts * blocks; number++) {
            const int64_t first = number % blocks * most_columns;
            const int64_t block = std::min(most_columns, channels - first);
            const int64_t first_column = number / blocks % parts * {{most_pixels}};
            const int64_t row = number / (blocks * parts) % rows;
            const int64_t image = number / (blocks * parts * rows);
            const int64_t pixels = std::min<int64_t>({{most_pixels}}, columns - first_column);
            const int64_t begin = (image * rows + row) * columns + first_column;
"""
    + PRODUCTS
    + r"""
            const float* from = x + image * (height * width * channels) + first;
            const int64_t top = row * stride_y - above;
            const Places down = places(top, kernel_height, dilation_y, height);

            constexpr std::integral_constant<int64_t, 1> one;
            constexpr std::integral_constant<int64_t, lanes> whole;

            // The sums of `count` pixels in a row, which all meet the same places of the kernel, in
            // `vectors` of channels: several sums, which do not wait for each other.
            const auto sum = [&](auto some_pixels, auto some_vectors, int64_t pixel, Places met) {
                constexpr int64_t count = some_pixels();
                const int64_t start = (first_column + pixel) * stride_x - left;
                const auto add = [&](auto few_vectors, int64_t channel, auto some) {
                    constexpr int64_t vectors = few_vectors();
                    const auto load = [&](const float* at) { return Vector::loadu(at, some); };
                    Vector sums[count][vectors];
#pragma GCC unroll 8
                    for (int64_t p = 0; p < count; p++) {
#pragma GCC unroll 8
                        for (int64_t v = 0; v < vectors; v++) {
                            sums[p][v] = Vector(0.0f);
                        }
                    }
                    for (int64_t y = down.begin; y < down.end; y++) {
                        const float* line = from + (top + y * dilation_y) * (width * channels);
                        for (int64_t place = met.begin; place < met.end; place++) {
                            const float* factor =
                                w + (y * kernel_width + place) * channels + first + channel;
                            const float* at =
                                line + (start + place * dilation_x) * channels + channel;
#pragma GCC unroll 8
                            for (int64_t v = 0; v < vectors; v++) {
                                const Vector factors = load(factor + v * lanes);
#pragma GCC unroll 8
                                for (int64_t p = 0; p < count; p++) {
                                    sums[p][v] = at::vec::fmadd(
                                        load(at + p * (stride_x * channels) + v * lanes), factors,
                                        sums[p][v]);
                                }
                            }
                        }
                    }
#pragma GCC unroll 8
                    for (int64_t p = 0; p < count; p++) {
                        float* to = products + (pixel + p) * stride + channel;
#pragma GCC unroll 8
                        for (int64_t v = 0; v < vectors; v++) {
                            sums[p][v].store(to + v * lanes, some);
                        }
                    }
                };
                constexpr int64_t together = some_vectors() * lanes;
                int64_t channel = 0;
                for (; channel + together <= block; channel += together) {
                    add(some_vectors, channel, whole);
                }
                for (; channel + lanes <= block; channel += lanes) {
                    add(one, channel, whole);
                }
                if (channel < block) {
                    add(one, channel, block - channel);
                }
            };
            const auto across = [&](int64_t pixel) {
                return places(
                    (first_column + pixel) * stride_x - left, kernel_width, dilation_x, width);
            };
            const auto inside = [&](int64_t pixel) {
                const Places met = across(pixel);
                return met.begin == 0 && met.end == kernel_width;
            };
            for (int64_t pixel = 0; pixel < pixels;) {
{%- for count, vectors in ((8, 1), (4, 2), (2, 4)) %}
                if (pixel + {{count}} <= pixels && inside(pixel) && inside(pixel + {{count - 1}})) {
                    sum(
                        std::integral_constant<int64_t, {{count}}>(),
                        std::integral_constant<int64_t, {{vectors}}>(), pixel, {0, kernel_width});
                    pixel += {{count}};
                    continue;
                }
{%- endfor %}
                sum(one, std::integral_constant<int64_t, 4>(), pixel, across(pixel));
                pixel += 1;
            }
"""
    + FOLLOWING
    + r"""
        }
    }
}
"""
)


@lowering.register_lowering(torch.ops.aoti.depthwise.default, type_promotion_kind=None)
def _(
    x: Any, weight: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Any:
    inputs = x, weight = contiguous(x), contiguous(weight)
    kernel_height, kernel_width, channels = map(int, weight.get_size())
    numbers = {
        **geometry((kernel_height, kernel_width), stride, padding, dilation),
        "channels": channels,
        "most_channels": min(_CHANNELS, channels),
        "most_pixels": _LINE,
    }
    return of_pixels("depthwise", _DEPTHWISE, inputs, numbers)
