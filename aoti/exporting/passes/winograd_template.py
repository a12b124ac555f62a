"""The C++ kernel of 3x3 convolutions by Winograd's algorithm, which this module gives to Inductor.

A tile of 2x2 outputs sees 4x4 pixels. Both are transformed, so that 16 products per pair of
channels do what 36 do in a plain convolution: F(2x2, 3x3) in A. Lavin, S. Gray, "Fast algorithms
for convolutional neural networks" (2015). The products of all tiles at one of the 16 places are one
product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._inductor import lowering

from aoti.exporting.passes.kernel_sources import FOLLOWING, GEOMETRY, THREADS
from aoti.exporting.passes.kernel_templates import contiguous, geometry, of_pixels

# What the tiles of a part become takes at most so many bytes, which stay in the second cache while
# all blocks of the weights pass by. Fewer tiles than the least would read the weights too often.
_BYTES, _LEAST, _MOST = 256 * 1024, 32, 128

_WINOGRAD = (
    r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    using Vector = at::vec::Vectorized<float>;
    constexpr int64_t lanes = Vector::size();
    constexpr int64_t blocks = {{blocks}}, block = {{block}}, outputs = blocks * block;
    constexpr int64_t depth = {{depth}}, side = 4, places = side * side;
"""
    + GEOMETRY
    + r"""
    const float* w = &{{kernel.index(W, ["0", "0", "0", "0"])}};

    // Parts of about the same size: some lines of tiles, or some tiles of a line.
    const auto divided = [](int64_t size, int64_t by) { return (size + by - 1) / by; };
    const auto even = [&](int64_t size, int64_t most) {
        return divided(size, divided(size, most));
    };
    const int64_t across = divided(columns, 2), down = divided(rows, 2);
    const int64_t part_across = even(across, {{most_tiles}});
    int64_t most_down = part_across == across ? std::max<int64_t>({{most_tiles}} / across, 1) : 1;
{%- if threaded %}
    const int64_t shares = batch * down * blocks / (2 * int64_t{omp_get_max_threads()});
    most_down = std::min(most_down, std::max<int64_t>(shares, 1));
{%- endif %}
    const int64_t part_down = even(down, most_down), most = part_down * part_across;
    const int64_t parts_across = divided(across, part_across);
    const int64_t parts = divided(down, part_down) * parts_across;

    // From a place to the next: no multiple of a page, or all would share a few sets of the cache.
    const int64_t seen_stride = most * depth + 16, sums_stride = most * block + 16;
"""
    + THREADS
    + r"""
    {
        const std::unique_ptr<float[]> room(new float[places * (seen_stride + sums_stride)]);
        float* seen = room.get();
        float* sums = seen + places * seen_stride;
        int64_t transformed = -1;
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [4 * most_tiles, block]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for
{%- endif %}
        for (int64_t number = 0; number < batch * parts * blocks; number++) {
            const int64_t image = number / (parts * blocks);
            const int64_t part = number / blocks % parts;
            const int64_t first = number % blocks * block;
            const int64_t first_down = part / parts_across * part_down;
            const int64_t first_across = part % parts_across * part_across;
            const int64_t few_down = std::min(part_down, down - first_down);
            const int64_t few_across = std::min(part_across, across - first_across);
            const int64_t tiles = few_down * few_across;
            const int64_t first_row = 2 * first_down, first_column = 2 * first_across;
            const int64_t few_rows = std::min(2 * few_down, rows - first_row);
            const int64_t few_columns = std::min(2 * few_across, columns - first_column);

            if (number / blocks != transformed) {
                transformed = number / blocks;
                for (int64_t line = 0; line < few_down; line++) {
                    const float* from[side];
                    for (int64_t y = 0; y < side; y++) {
                        const int64_t at = first_row + 2 * line + y - above;
                        from[y] = at < 0 || at >= height
                            ? nullptr : x + (image * height + at) * (width * depth);
                    }
                    for (int64_t channel = 0; channel < depth; channel += lanes) {
                        const auto column = [&](int64_t at, Vector (&to)[side]) {
                            Vector pixel[side];
                            for (int64_t y = 0; y < side; y++) {
                                pixel[y] = from[y] == nullptr || at < 0 || at >= width
                                    ? Vector(0.0f) : Vector::loadu(from[y] + at * depth + channel);
                            }
                            to[0] = pixel[0] - pixel[2];
                            to[1] = pixel[1] + pixel[2];
                            to[2] = pixel[2] - pixel[1];
                            to[3] = pixel[1] - pixel[3];
                        };
                        int64_t at = first_column - left;
                        float* to = seen + line * few_across * depth + channel;
                        Vector a[side], b[side], c[side], d[side];
                        column(at, a);
                        column(at + 1, b);
                        for (int64_t tile = 0; tile < few_across; tile++, to += depth) {
                            column(at += 2, c);
                            column(at + 1, d);
                            for (int64_t y = 0; y < side; y++) {
                                float* place = to + y * side * seen_stride;
                                (a[y] - c[y]).store(place);
                                (b[y] + c[y]).store(place + seen_stride);
                                (c[y] - b[y]).store(place + 2 * seen_stride);
                                (b[y] - d[y]).store(place + 3 * seen_stride);
                                a[y] = c[y];
                                b[y] = d[y];
                            }
                        }
                    }
                }
            }
            for (int64_t place = 0; place < places; place++) {
                at::native::cpublas::brgemm(
                    tiles, block, depth, depth, block, block, false, seen + place * seen_stride,
                    w + (first * places + place * block) * depth, sums + place * sums_stride,
                    false);
            }
{%- if epilogues %}
            constexpr int64_t stride = block;
            float* const results = products;
            const int64_t line_stride = few_columns * stride;
{%- else %}
            constexpr int64_t stride = outputs;
            float* const results =
                Y + ((image * rows + first_row) * columns + first_column) * outputs + first;
            const int64_t line_stride = columns * stride;
{%- endif %}
            for (int64_t tile = 0; tile < tiles; tile++) {
                const int64_t row = tile / few_across * 2, column = tile % few_across * 2;
                float* const to = results + row * line_stride + column * stride;
                for (int64_t output = 0; output < block; output += lanes) {
                    const float* from = sums + tile * block + output;
                    Vector upper[side], lower[side];
                    for (int64_t place = 0; place < side; place++, from += sums_stride) {
                        Vector sum[side];
                        for (int64_t y = 0; y < side; y++) {
                            sum[y] = Vector::loadu(from + y * side * sums_stride);
                        }
                        upper[place] = sum[0] + sum[1] + sum[2];
                        lower[place] = sum[1] - sum[2] - sum[3];
                    }
                    const auto finish = [&](const Vector (&line)[side], float* pixel) {
                        (line[0] + line[1] + line[2]).store(pixel);
                        if (column + 1 < few_columns) {
                            (line[1] - line[2] - line[3]).store(pixel + stride);
                        }
                    };
                    finish(upper, to + output);
                    if (row + 1 < few_rows) {
                        finish(lower, to + output + line_stride);
                    }
                }
            }
{%- if epilogues %}
            const int64_t together = few_columns == columns ? few_rows : 1;
            const int64_t pixels = together * few_columns;
            for (int64_t row = 0; row < few_rows; row += together) {
                const int64_t done = row * few_columns;
                const int64_t begin =
                    (image * rows + first_row + row) * columns + first_column;
{%- set products_from = "done" %}
"""
    + FOLLOWING
    + r"""
            }
{%- endif %}
        }
    }
}
"""
)


@lowering.register_lowering(torch.ops.aoti.winograd.default, type_promotion_kind=None)
def _(x: Any, weight: Any, padding: Sequence[int]) -> Any:
    inputs = contiguous(x), contiguous(weight)
    blocks, _, depth, block = map(int, inputs[1].get_size())
    numbers = {
        **geometry((3, 3), (1, 1), padding, (1, 1)),
        "blocks": blocks,
        "block": block,
        "depth": depth,
        "most_tiles": min(max(_BYTES // (4 * 16 * (depth + block)), _LEAST), _MOST),
    }
    return of_pixels("winograd", _WINOGRAD, inputs, numbers)
