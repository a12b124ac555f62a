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

# At most so many pixels are computed at a time: their inputs stay in the caches. And an image with
# enough rows is divided into at least so many tiles, if threads share them.
_TILE, _TILES = 256, 4
# At most so many rows of a product are computed at a time: a multiple of nine, for which brgemm has
# registers if a block has 48 columns.
_ROWS = 72


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
    batch, rows, columns, outputs = shape[0], *map(int, shape[1:])
    _, height, width, channels = x.get_size()
    kernel_height, kernel_width, _, _ = weight.get_size()
    tile_columns = min(columns, _TILE)
    most = min(_TILE // columns, rows // _TILES if _threaded() else rows)
    numbers = {
        "height": int(height),
        "width": int(width),
        "channels": int(channels),
        "kernel_height": int(kernel_height),
        "kernel_width": int(kernel_width),
        "stride_y": stride[0],
        "stride_x": stride[1],
        "dilation_y": dilation[0],
        "dilation_x": dilation[1],
        "left": padding[0],
        "above": padding[2],
        "rows": rows,
        "columns": columns,
        "outputs": outputs,
        "tile_rows": max(r for r in range(1, max(most, 1) + 1) if rows % r == 0),
        "tile_columns": tile_columns,
        # Windows of one pixel are multiplied in place.
        "gathers": kernel_height * kernel_width > 1 or any(padding),
    }
    pixels = batch * rows * columns
    matrix = _generated("convolution", _CONVOLUTION, inputs, (pixels, outputs), numbers)
    return lowering.view(matrix, shape)


@lowering.register_lowering(torch.ops.aoti.blocked_product.default, type_promotion_kind=None)
def _(x: Any, weight: Any) -> Any:
    inputs = x, weight = _contiguous(x), _contiguous(weight)
    blocks, depth, width = map(int, weight.get_size())
    numbers = {"blocks": blocks, "depth": depth, "width": width, "tile": _ROWS}
    return _generated(
        "blocked_product", _BLOCKED_PRODUCT, inputs, (x.get_size()[0], blocks * width), numbers
    )


# Computes some rows of outputs at a time. Each input row that they need is laid out once as the
# windows along it, including zeros, and is used for every row of the kernel.
_CONVOLUTION = r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t height = {{height}}, width = {{width}}, channels = {{channels}};
    constexpr int64_t kernel_height = {{kernel_height}}, kernel_width = {{kernel_width}};
    constexpr int64_t stride_y = {{stride_y}}, stride_x = {{stride_x}};
    constexpr int64_t rows = {{rows}}, columns = {{columns}}, outputs = {{outputs}};
    constexpr int64_t tile_rows = {{tile_rows}}, tile_columns = {{tile_columns}};
    constexpr int64_t tiles_across = (columns + tile_columns - 1) / tile_columns;
    constexpr int64_t tiles = rows / tile_rows * tiles_across;
    const int64_t batch = {{kernel.size(X, 0)}};
    const float* x = &{{kernel.index(X, ["0", "0", "0", "0"])}};
    const float* w = &{{kernel.index(W, ["0", "0", "0", "0"])}};
{%- if gathers %}
    constexpr int64_t dilation_y = {{dilation_y}}, dilation_x = {{dilation_x}};
    constexpr int64_t above = {{above}}, left = {{left}};
    constexpr int64_t window = kernel_width * channels, line = tile_columns * window;
    // Lines that are a stride apart are stored together: a row of the kernel meets one matrix.
    constexpr int64_t reach = (kernel_height - 1) * dilation_y;
    constexpr int64_t phases = std::min(stride_y, reach + 1);
    constexpr int64_t phase_lines = tile_rows + reach / stride_y;

    // A row of the input as the windows of outputs in a row.
    const auto lay_out = [](const float* row, int64_t begin, int64_t end, float* to) {
        for (int64_t column = begin; column < end; column++, to += window) {
            const int64_t first = column * stride_x - left;
            if (dilation_x == 1 && first >= 0 && first + kernel_width <= width) {
                std::memcpy(to, row + first * channels, window * sizeof(float));
                continue;
            }
            for (int64_t place = 0; place < kernel_width; place++) {
                const int64_t at = first + place * dilation_x;
                float* pixel = to + place * channels;
                if (at >= 0 && at < width) {
                    std::memcpy(pixel, row + at * channels, channels * sizeof(float));
                } else {
                    std::memset(pixel, 0, channels * sizeof(float));
                }
            }
        }
    };
{%- endif %}
{% if threaded %}
    #pragma omp parallel{{ "" if every_thread else " num_threads(%d)" % template.num_threads }}
{%- endif %}
    {
{%- if gathers %}
        const std::unique_ptr<float[]> lines(new float[phases * phase_lines * line]);
{%- endif %}
{%- if epilogues %}
        {{ kernel.define_buffer("products", [tile_rows * tile_columns, outputs]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for
{%- endif %}
        for (int64_t number = 0; number < batch * tiles; number++) {
            const int64_t first_row = number % tiles / tiles_across * tile_rows;
            const int64_t first_column = number % tiles_across * tile_columns;
            const int64_t end_column = std::min(first_column + tile_columns, columns);
            const int64_t pixels = tile_rows * (end_column - first_column);
            const int64_t begin = (number / tiles * rows + first_row) * columns + first_column;
            const float* image = x + number / tiles * (height * width * channels);
{%- if not epilogues %}
            float* products = Y + begin * outputs;
{%- endif %}
{%- if gathers %}
            for (int64_t phase = 0; phase < phases; phase++) {
                for (int64_t step = 0; step < phase_lines; step++) {
                    const int64_t at = (first_row + step) * stride_y + phase - above;
                    float* to = lines.get() + (phase * phase_lines + step) * line;
                    if (at >= 0 && at < height) {
                        lay_out(image + at * (width * channels), first_column, end_column, to);
                    } else {
                        std::memset(to, 0, line * sizeof(float));
                    }
                }
            }
            for (int64_t place = 0; place < kernel_height; place++) {
                const int64_t offset = place * dilation_y;
                const int64_t met = offset % stride_y * phase_lines + offset / stride_y;
                at::native::cpublas::brgemm(
                    pixels, outputs, window, window, outputs, outputs, place > 0,
                    lines.get() + met * line, w + place * (window * outputs), products, false);
            }
{%- else %}
            constexpr int64_t together = stride_x * stride_y == 1 ? tile_rows : 1;
            for (int64_t row = 0; row < tile_rows; row += together) {
                const int64_t line = (first_row + row) * stride_y * width;
                at::native::cpublas::brgemm(
                    pixels / tile_rows * together, outputs, channels, stride_x * channels, outputs,
                    outputs, false, image + (line + first_column * stride_x) * channels, w,
                    products + row * tile_columns * outputs, false);
            }
{%- endif %}
{%- if epilogues %}
    {%- set target = kernel.slice_nd(result_rows, [("begin", "begin + pixels"), ()]) %}
    {%- set computed = kernel.slice_nd(kernel.local_buffers["products"], [("0", "pixels"), ()]) %}
            {{ kernel.store_output(
                target, computed, product, epilogues,
                offsets=("begin", "0"), reindexers=reindexers)|indent(12, false) }}
{%- endif %}
        }
    }
}
"""

# Computes a block of columns at a time, whose weights stay in the caches from tile to tile.
_BLOCKED_PRODUCT = r"""
{{template.header().getvalue()}}
#include <ATen/native/CPUBlas.h>

extern "C"
{{kernel.def_kernel(inputs={"X": X, "W": W}, outputs={"Y": Y}, aliases=aliases)}}
{
    constexpr int64_t blocks = {{blocks}}, depth = {{depth}}, width = {{width}};
    constexpr int64_t outputs = blocks * width, tile = {{tile}};
    const int64_t rows = {{kernel.size(X, 0)}};
    const float* x = &{{kernel.index(X, ["0", "0"])}};
    const float* w = &{{kernel.index(W, ["0", "0", "0"])}};
{% if threaded %}
    #pragma omp parallel{{ "" if every_thread else " num_threads(%d)" % template.num_threads }}
{%- endif %}
    {
{%- if epilogues %}
        {{ kernel.define_stack_allocated_buffer("products", [tile, width]) }}
{%- endif %}
{%- if threaded %}
        #pragma omp for collapse(2)
{%- endif %}
        for (int64_t block = 0; block < blocks; block++) {
            for (int64_t begin = 0; begin < rows; begin += tile) {
                const int64_t first = block * width;
                const int64_t few = std::min(tile, rows - begin);
{%- if epilogues %}
                constexpr int64_t stride = width;
{%- else %}
                constexpr int64_t stride = outputs;
                float* products = Y + begin * outputs + first;
{%- endif %}
                // Of eights and a rest: a kernel for every number of rows would be too many.
                for (int64_t done = 0, next; done < few; done += next) {
                    next = few - done < 8 ? few - done : (few - done) / 8 * 8;
                    at::native::cpublas::brgemm(
                        next, width, depth, depth, width, stride, false,
                        x + (begin + done) * depth, w + block * (depth * width),
                        products + done * stride, false);
                }
{%- if epilogues %}
    {%- set target = kernel.slice_nd(
        result_rows, [("begin", "begin + few"), ("first", "first + width")]) %}
    {%- set computed = kernel.slice_nd(
        kernel.local_buffers["products"], [("0", "few"), ("0", "width")]) %}
                {{ kernel.store_output(
                    target, computed, product, epilogues,
                    offsets=("begin", "first"), reindexers=reindexers)|indent(16, false) }}
{%- endif %}
            }
        }
    }
}
"""
