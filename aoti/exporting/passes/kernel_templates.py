"""C++ kernels that Inductor generates for our operators, in processes that import this module."""

from __future__ import annotations

import math
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

import aoti.exporting.passes.operators  # noqa: F401 (they are defined there)
from aoti.exporting.passes.kernel_sources import (
    BLOCKED_PRODUCT,
    CONVOLUTION,
    NARROW_PRODUCT,
)

# At most so many rows of a product are computed at a time: a multiple of eight, where rows are cut,
# and of nine, for which brgemm has registers if a block has 48 columns.
_ROWS = 72
# At most so many pixels are computed at a time, and the windows that they see take at most so many
# bytes: they stay in the caches while all blocks of the weights pass by.
_PIXELS, _BYTES = 256, 256 * 1024
# An image of at most so many channels is read as it is given, one channel after another.
_FEW_PLANES = 4


class Template(CppTemplate):
    """A kernel that computes a matrix, and the elementwise operators that follow it.

    Parameters
    ----------
    name : str
        The name of the kernel.
    source : str
        The code, as a Jinja template.
    inputs, layout : Inductor's nodes and layout
        The two inputs of the operator, and its output as a matrix.
    numbers : mapping
        The numbers in the code: sizes, strides and so on; and names of types.
    """

    def __init__(
        self,
        name: str,
        source: str,
        inputs: Sequence[Any],
        layout: Any,
        numbers: Mapping[str, Any],
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
                threaded=threaded(),
                every_thread=config.cpp.dynamic_threads
                or (config.cpp.threads < 1 and self.num_threads == os.cpu_count()),
            )
        return code


def threaded() -> bool:
    """Whether kernels may run on several threads."""
    return bool(config.cpp.dynamic_threads) or parallel_num_threads() > 1


def _copy(source: Any, target: Any) -> Any:
    """A node that writes one buffer into another, under the name of the second."""
    data = lowering.copy(target, ir.TensorBox.create(source)).data.data
    return ir.ComputedBuffer(name=target.get_name(), layout=target.layout, data=data)


def generated(
    name: str,
    source: str,
    inputs: Sequence[Any],
    shape: Sequence[Any],
    numbers: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The output of a template for contiguous inputs, a matrix."""
    layout = ir.FixedLayout(inputs[0].get_device(), dtype, [*shape], [shape[1], 1])
    template: Any = Template(name, source, inputs, layout, numbers)
    return template.generate().output_node()


def contiguous(given: Any) -> Any:
    """An input of a kernel in memory, in C order."""
    return ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(given))


def in_planes(image: Any) -> bool:
    """Whether an image with its channels innermost is in memory one channel after another."""
    if not ir.is_storage_and_layout(image):
        return False
    _, height, width, channels = image.get_size()
    wanted = height * width * channels, width, 1, height * width
    return all(map(V.graph.sizevars.statically_known_equals, image.get_stride(), wanted))


def of_pixels(name: str, source: str, inputs: Sequence[Any], numbers: Mapping[str, Any]) -> Any:
    """The output of a template that computes a row of a matrix for each pixel of an image."""
    sizes = V.graph.current_node.meta["val"].shape
    *pixels, channels = (
        size.node.expr if isinstance(size, torch.SymInt) else size for size in sizes
    )
    matrix = generated(name, source, inputs, (math.prod(pixels), channels), numbers)
    return lowering.view(matrix, [*pixels, channels])


def geometry(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> dict[str, int]:
    """The numbers of a convolution that `GEOMETRY` reads."""
    left, right, above, below = padding
    return {
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "stride_y": stride[0],
        "stride_x": stride[1],
        "dilation_y": dilation[0],
        "dilation_x": dilation[1],
        "left": left,
        "above": above,
        "zeros_x": left + right,
        "zeros_y": above + below,
    }


@lowering.register_lowering(torch.ops.aoti.convolution.default, type_promotion_kind=None)
def _(
    x: Any, weight: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Any:
    weight = contiguous(weight)
    groups, blocks, kernel_height, kernel_width, depth, block = map(int, weight.get_size())
    planar = groups == 1 and 1 < depth <= _FEW_PLANES and in_planes(x)
    inputs = ir.ExternKernel.realize_input(x) if planar else contiguous(x), weight
    numbers = {
        **geometry((kernel_height, kernel_width), stride, padding, dilation),
        "planar": planar,
        "groups": groups,
        "blocks": blocks,
        "block": block,
        "depth": depth,
        "most_pixels": _PIXELS,
        "most_bytes": _BYTES,
    }
    return of_pixels("convolution", CONVOLUTION, inputs, numbers)


@lowering.register_lowering(torch.ops.aoti.blocked_product.default, type_promotion_kind=None)
def _(x: Any, weight: Any) -> Any:
    inputs = x, weight = contiguous(x), contiguous(weight)
    blocks, depth, block = map(int, weight.get_size())
    numbers = {"blocks": blocks, "depth": depth, "block": block, "tile": _ROWS}
    return generated(
        "blocked_product", BLOCKED_PRODUCT, inputs, (x.get_size()[0], blocks * block), numbers
    )


# The engine's function for inputs of a dtype, and the types of inputs, weights and sums in C++.
_NARROW = {
    torch.uint8: ("bytes", "uint8_t", "int8_t", "int32_t"),
    torch.bfloat16: ("halves", "at::BFloat16", "at::BFloat16", "float"),
    torch.float32: ("wide", "float", "int8_t", "float"),
}


@lowering.register_lowering(torch.ops.aoti.narrow_product.default, type_promotion_kind=None)
def _(x: Any, weight: Any) -> Any:
    inputs = x, weight = contiguous(x), contiguous(weight)
    blocks, steps, block, step = map(int, weight.get_size())
    function, left, right, total = _NARROW[x.get_dtype()]
    settings = {
        "function": f"aoti_torch_own_multiply_{function}",
        "left": left,
        "right": right,
        "sum": total,
        "blocks": blocks,
        "depth": steps * step,
        "block": block,
        "step": step,
        "tile": _ROWS,
    }
    dtype = torch.int32 if x.get_dtype() == torch.uint8 else torch.float32
    shape = x.get_size()[0], blocks * block
    return generated("narrow_product", NARROW_PRODUCT, inputs, shape, settings, dtype)


@lowering.register_lowering(torch.ops.aoti.stored.default, type_promotion_kind=None)
def _(x: Any) -> Any:
    x.realize()
    return x
