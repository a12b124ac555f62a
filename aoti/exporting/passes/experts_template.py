"""The C++ kernel that Inductor generates for products of groups of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor import lowering

import aoti.exporting.passes.experts  # noqa: F401 (defines the operator)
from aoti.exporting.passes.kernel_sources import FOLLOWING, MULTIPLY, PRODUCTS, THREADS
from aoti.exporting.passes.kernel_templates import contiguous, generated

_ROWS = 72  # at most so many rows of a product are computed at a time

_SOURCE = (
    r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(
    inputs={"X": X, "W": W, "E": template.input_nodes[2]}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t groups = {{groups}}, blocks = {{blocks}};
    constexpr int64_t depth = {{depth}}, block = {{block}};
    constexpr int64_t outputs = blocks * block, most_columns = block, tile = {{tile}};
    const float* x = &{{kernel.index(X, ["0", "0"])}};
    const float* w = &{{kernel.index(W, ["0", "0", "0", "0"])}};
    const auto* ends = &{{kernel.index(template.input_nodes[2], ["0"])}};
    const int64_t rows = {{kernel.size(X, 0)}};
"""
    + MULTIPLY
    + r"""
    // The rows of a group lie between two bounds; those behind the last group are zeros.
    int64_t bounds[groups + 2] = {0};
    for (int64_t group = 0; group < groups; group++) {
        bounds[group + 1] = std::clamp<int64_t>(ends[group], bounds[group], rows);
    }
    bounds[groups + 1] = rows;
"""
    + THREADS
    + r"""
    {
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [tile, block]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for schedule(dynamic)
{%- endif %}
        for (int64_t number = 0; number < (groups + 1) * blocks; number++) {
            const int64_t group = number / blocks, first = number % blocks * block;
            const int64_t end = bounds[group + 1];
            for (int64_t begin = bounds[group]; begin < end; begin += tile) {
                const int64_t pixels = std::min(tile, end - begin);
"""
    + PRODUCTS
    + r"""
                if (group < groups) {
                    multiply(pixels, block, depth, x + begin * depth, w + number * depth * block,
                             false, products, stride);
                } else {
                    for (int64_t row = 0; row < pixels; row++) {
                        std::memset(products + row * stride, 0, block * sizeof(float));
                    }
                }
"""
    + FOLLOWING
    + r"""
            }
        }
    }
}
"""
)


@lowering.register_lowering(torch.ops.aoti.grouped_product.default, type_promotion_kind=None)
def _(x: Any, weight: Any, ends: Any) -> Any:
    inputs = x, weight, ends = contiguous(x), contiguous(weight), contiguous(ends)
    groups, blocks, depth, block = map(int, weight.get_size())
    numbers = {"groups": groups, "blocks": blocks, "depth": depth, "block": block, "tile": _ROWS}
    shape = x.get_size()[0], blocks * block
    return generated("grouped_product", _SOURCE, inputs, shape, numbers)
