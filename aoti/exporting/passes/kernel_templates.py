"""C++ kernels that Inductor generates for our operators, in processes that import this module.

They call libtorch's `brgemm`: it uses the widest vectors of the machine that it runs on, whatever
the package was compiled for, and generates its kernel for a shape once per thread, in about 0.1 ms.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch._inductor import config, ir, lowering
from torch._inductor.codegen.cpp_gemm_template import gen_2d_view_of_epilogue_buf
from torch._inductor.codegen.cpp_template import CppTemplate
from torch._inductor.utils import parallel_num_threads
from torch._inductor.virtualized import V

from aoti.exporting.passes.operators import convolved

# At most so many rows of a product are computed at a time: a multiple of nine, for which brgemm has
# registers if a block has 48 columns.
_ROWS = 72
# At most so many pixels are computed at a time, and the windows that they see take at most so many
# bytes: they stay in the caches while all blocks of the weights pass by.
_PIXELS, _BYTES = 256, 256 * 1024


class ProductTemplate(CppTemplate):
    """Small matrix products, and the elementwise operators that follow them.

    Parameters
    ----------
    name : str
        The name of the kernel.
    source : str
        The code, as a Jinja template.
    inputs, layout : Inductor's nodes and layout
        The two inputs of the operator, and its output as a matrix.
    numbers : mapping
        The numbers in the code: sizes, strides and so on.
    """

    def __init__(
        self,
        name: str,
        source: str,
        inputs: Sequence[Any],
        layout: Any,
        numbers: Mapping[str, int],
    ) -> None:
        super().__init__(name, [*inputs], layout, parallel_num_threads())
        self.source, self.numbers = source, numbers

    def render(  # type: ignore[override]
        self,
        kernel: Any,
        template_buffer_node: Any = None,
        flag_template_buffer_has_other_users: bool | None = None,
        epilogue_nodes: Sequence[Any] | None = None,
        **_: Any,
    ) -> str:
        """The code. `CppGemmTemplate.get_options` shows what Inductor passes to it."""
        product: Any = template_buffer_node or self.output_node
        result = result_rows = product
        epilogues, following = [], list(epilogue_nodes or ())
        reindexers: list[Any] = []
        aliases: dict[str, str] = {}
        with ExitStack() as stack:
            if following:
                if flag_template_buffer_has_other_users:
                    # The following nodes read the products from the tile, which is reused.
                    product = ir.Buffer(name=f"{result.get_name()}_product", layout=result.layout)
                    stack.enter_context(
                        patch.object(V.graph, "get_dtype", self._fake_get_dtype(product))
                    )
                    epilogues.append(_copy(product, result))
                    reindexers.append(None)
                epilogues += following
                given, result = result, following[-1]
                aliases[product.get_name()] = result.get_name()
                for node in following:  # one by one: they may differ in rank
                    result_rows, reindexers = gen_2d_view_of_epilogue_buf(
                        node, given, [node], reindexers, [None]
                    )
            code: str = self._template_from_string(self.source).render(
                **self.numbers,
                kernel=kernel,
                template=self,
                X=self.input_nodes[0],
                W=self.input_nodes[1],
                Y=result,
                result_rows=result_rows,
                product=product,
                aliases=aliases,
                epilogues=epilogues,
                reindexers=reindexers,
                threaded=_threaded(),
                every_thread=config.cpp.dynamic_threads
                or (config.cpp.threads < 1 and self.num_threads == os.cpu_count()),
            )
        return code


def _threaded() -> bool:
    return bool(config.cpp.dynamic_threads) or parallel_num_threads() > 1


def _copy(source: Any, target: Any) -> Any:
    """A node that writes one buffer into another, under the name of the second."""
    data = lowering.copy(target, ir.TensorBox.create(source)).data.data
    return ir.ComputedBuffer(name=target.get_name(), layout=target.layout, data=data)


def _generated(
    name: str, source: str, inputs: Sequence[Any], shape: Sequence[Any], numbers: Mapping[str, int]
) -> Any:
    """The output of a template for contiguous inputs, a matrix."""
    layout = ir.FixedLayout(inputs[0].get_device(), torch.float32, [*shape], [shape[1], 1])
    template: Any = ProductTemplate(name, source, inputs, layout, numbers)
    return template.generate().output_node()


def _contiguous(given: Any) -> Any:
    return ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(given))


@lowering.register_lowering(torch.ops.aoti.convolution.default, type_promotion_kind=None)
def _(
    x: Any, weight: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Any:
    inputs = x, weight = _contiguous(x), _contiguous(weight)
    shape = convolved(x.get_size(), weight.get_size(), stride, padding, dilation)
    groups, blocks, kernel_height, kernel_width, depth, block = map(int, weight.get_size())
    left, right, above, below = padding
    numbers = {
        "groups": groups,
        "blocks": blocks,
        "block": block,
        "depth": depth,
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "stride_y": stride[0],
        "stride_x": stride[1],
        "dilation_y": dilation[0],
        "dilation_x": dilation[1],
        "left": left,
        "above": above,
        "zeros_x": left + right,
        "zeros_y": above + below,
        "most_pixels": _PIXELS,
        "most_bytes": _BYTES,
    }
    pixels = shape[0] * shape[1] * shape[2]
    matrix = _generated("convolution", _CONVOLUTION, inputs, (pixels, shape[3]), numbers)
    return lowering.view(matrix, shape)


@lowering.register_lowering(torch.ops.aoti.blocked_product.default, type_promotion_kind=None)
def _(x: Any, weight: Any) -> Any:
    inputs = x, weight = _contiguous(x), _contiguous(weight)
    blocks, depth, block = map(int, weight.get_size())
    numbers = {"blocks": blocks, "depth": depth, "block": block, "tile": _ROWS}
    return _generated(
        "blocked_product", _BLOCKED_PRODUCT, inputs, (x.get_size()[0], blocks * block), numbers
    )


# A block of columns of a product. Its rows are taken by eights, and then the rest: brgemm generates
# a kernel for every number of rows, and these are few.
_MULTIPLY = r"""
    const auto multiply = [](int64_t rows, int64_t depth, const float* a, const float* b, bool add,
                             float* c, int64_t stride) {
        for (int64_t done = 0, next; done < rows; done += next) {
            next = rows - done < 8 ? rows - done : (rows - done) / 8 * 8;
            at::native::cpublas::brgemm(
                next, block, depth, depth, block, stride, add, a + done * depth, b,
                c + done * stride, false);
        }
    };
"""

# A parallel region, in which every thread takes products one after the other, in the order of the
# memory that they use.
_THREADS = r"""
{%- if threaded %}
    #pragma omp parallel{{ "" if every_thread else " num_threads(%d)" % template.num_threads }}
{%- endif %}
"""

# What follows a block of products, and the place of the result: `pixels` rows from `begin` on, and
# the columns from `first` on.
_FOLLOWING = r"""
{%- if epilogues %}
    {%- set target = kernel.slice_nd(
        result_rows, [("begin", "begin + pixels"), ("first", "first + block")]) %}
    {%- set computed = kernel.slice_nd(
        kernel.local_buffers["products"], [("0", "pixels"), ("0", "block")]) %}
            {{ kernel.store_output(
                target, computed, product, epilogues,
                offsets=("begin", "first"), reindexers=reindexers)|indent(12, false) }}
{%- endif %}
"""

# Lays out a tile of the image as the windows along its lines, including zeros. All rows of the
# kernel use the same lines, unless the kernel leaves lines out.
_CONVOLUTION = (
    r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t groups = {{groups}}, blocks = {{blocks}}, block = {{block}};
    constexpr int64_t depth = {{depth}}, channels = groups * depth;
    constexpr int64_t outputs = groups * blocks * block;
    constexpr int64_t kernel_height = {{kernel_height}}, kernel_width = {{kernel_width}};
    constexpr int64_t stride_y = {{stride_y}}, stride_x = {{stride_x}};
    constexpr int64_t dilation_y = {{dilation_y}}, dilation_x = {{dilation_x}};
    constexpr int64_t above = {{above}}, left = {{left}};
    const int64_t batch = {{kernel.size(X, 0)}};
    const int64_t height = {{kernel.size(X, 1)}}, width = {{kernel.size(X, 2)}};
    const float* x = &{{kernel.index(X, ["0", "0", "0", "0"])}};
    const float* w = &{{kernel.index(W, ["0", "0", "0", "0", "0", "0"])}};

    constexpr int64_t reach = (kernel_height - 1) * dilation_y;
    constexpr bool shared = dilation_y == 1;  // rows of the kernel share lines of the image
    const int64_t rows = (height + {{zeros_y}} - reach - 1) / stride_y + 1;
    const int64_t columns =
        (width + {{zeros_x}} - (kernel_width - 1) * dilation_x - 1) / stride_x + 1;

    // Whole rows of outputs, or parts of one row.
    constexpr int64_t window = kernel_width * depth;
    constexpr int64_t most_windows = {{most_bytes}} / (window * int64_t{sizeof(float)});
    const int64_t tile_columns =
        std::min(columns, std::clamp<int64_t>(most_windows / kernel_height, 8, {{most_pixels}}));
    int64_t tile_rows = 1;
    if (tile_columns == columns) {
        tile_rows = shared ? (most_windows / columns - reach) / stride_y
                           : most_windows / (columns * kernel_height);
        tile_rows = std::min({tile_rows, {{most_pixels}} / columns, rows});
{%- if threaded %}
        const int64_t parts = batch * rows * groups * blocks;
        tile_rows = std::min(tile_rows, parts / (2 * int64_t{omp_get_max_threads()}));
{%- endif %}
        tile_rows = std::max<int64_t>(tile_rows, 1);
    }
    const int64_t tiles_across = (columns + tile_columns - 1) / tile_columns;
    const int64_t tiles = (rows + tile_rows - 1) / tile_rows * tiles_across;

    // A row of the kernel meets one matrix: lines that lie a stride apart are stored together. If
    // the kernel leaves lines out, they are stored for each of its rows.
    constexpr int64_t phases = shared ? std::min(stride_y, reach + 1) : kernel_height;
    const int64_t line = tile_columns * window;
    const int64_t phase_lines = tile_rows + (shared ? reach / stride_y : 0);

    // A line of the image as the windows of outputs in a row.
    const auto lay_out = [&](const float* from, int64_t begin, int64_t end, float* to) {
        for (int64_t column = begin; column < end; column++, to += window) {
            const int64_t first = column * stride_x - left;
            if (groups == 1 && dilation_x == 1 && first >= 0 && first + kernel_width <= width) {
                std::memcpy(to, from + first * channels, window * sizeof(float));
                continue;
            }
            for (int64_t place = 0; place < kernel_width; place++) {
                const int64_t at = first + place * dilation_x;
                float* pixel = to + place * depth;
                if (at >= 0 && at < width) {
                    std::memcpy(pixel, from + at * channels, depth * sizeof(float));
                } else {
                    std::memset(pixel, 0, depth * sizeof(float));
                }
            }
        }
    };
"""
    + _MULTIPLY
    + _THREADS
    + r"""
    {
        const std::unique_ptr<float[]> lines(new float[phases * phase_lines * line]);
        int64_t laid_out = -1;
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [most_pixels, block]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for
{%- endif %}
        for (int64_t number = 0; number < batch * tiles * groups * blocks; number++) {
            const int64_t image = number / (tiles * groups * blocks);
            const int64_t tile = number / (groups * blocks) % tiles;
            const int64_t group = number / blocks % groups;
            const int64_t first = number % (groups * blocks) * block;
            const int64_t first_row = tile / tiles_across * tile_rows;
            const int64_t first_column = tile % tiles_across * tile_columns;
            const int64_t few_rows = std::min(tile_rows, rows - first_row);
            const int64_t few_columns = std::min(tile_columns, columns - first_column);
            const int64_t pixels = few_rows * few_columns;
            const int64_t begin = (image * rows + first_row) * columns + first_column;
            if (number / blocks != laid_out) {
                laid_out = number / blocks;
                const float* from = x + image * (height * width * channels) + group * depth;
                for (int64_t phase = 0; phase < phases; phase++) {
                    const int64_t needed = few_rows + (shared ? (reach - phase) / stride_y : 0);
                    for (int64_t step = 0; step < needed; step++) {
                        const int64_t at =
                            (first_row + step) * stride_y + phase * dilation_y - above;
                        float* to = lines.get() + (phase * phase_lines + step) * line;
                        if (at >= 0 && at < height) {
                            lay_out(
                                from + at * (width * channels), first_column,
                                first_column + few_columns, to);
                        } else {
                            std::memset(to, 0, few_columns * window * sizeof(float));
                        }
                    }
                }
            }
{%- if epilogues %}
            constexpr int64_t stride = block;
{%- else %}
            constexpr int64_t stride = outputs;
            float* products = Y + begin * outputs + first;
{%- endif %}
            const float* weights = w + first * (kernel_height * window);
            for (int64_t place = 0; place < kernel_height; place++) {
                const int64_t met = shared ? place % stride_y * phase_lines + place / stride_y
                                           : place * phase_lines;
                multiply(
                    pixels, window, lines.get() + met * line, weights + place * (window * block),
                    place > 0, products, stride);
            }
"""
    + _FOLLOWING
    + r"""
        }
    }
}
"""
)

# Computes some rows at a time, which stay in the caches while all blocks of the weights pass by.
_BLOCKED_PRODUCT = (
    r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t blocks = {{blocks}}, depth = {{depth}}, block = {{block}};
    constexpr int64_t outputs = blocks * block, tile = {{tile}};
    const int64_t rows = {{kernel.size(X, 0)}};
    const float* x = &{{kernel.index(X, ["0", "0"])}};
    const float* w = &{{kernel.index(W, ["0", "0", "0"])}};
"""
    + _MULTIPLY
    + _THREADS
    + r"""
    {
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [tile, block]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for collapse(2)
{%- endif %}
        for (int64_t begin = 0; begin < rows; begin += tile) {
            for (int64_t first = 0; first < outputs; first += block) {
                const int64_t pixels = std::min(tile, rows - begin);
{%- if epilogues %}
                constexpr int64_t stride = block;
{%- else %}
                constexpr int64_t stride = outputs;
                float* products = Y + begin * outputs + first;
{%- endif %}
                multiply(
                    pixels, depth, x + begin * depth, w + first * depth, false, products, stride);
"""
    + _FOLLOWING
    + r"""
            }
        }
    }
}
"""
)
