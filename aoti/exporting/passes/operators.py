"""The custom operators of rewritten graphs.

This module defines what they compute; `aoti.exporting.passes.kernel_templates` makes their kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "aoti"


# Columns of a block of weights, the best first: multiples of what kernels process at a time.
_BEST = (48, 64, 32, 40, 56)
_BLOCKS = (*_BEST, *range(63, 15, -1))


def block_of(outputs: int) -> int | None:
    """How many outputs a block of weights should have; None if they cannot be divided well."""
    return next((n for n in (outputs, *_BLOCKS) if n <= 64 and outputs % n == 0), None)


def blocks_for(outputs: int) -> tuple[int, int]:
    """How many blocks of weights such outputs should have, and the outputs of one.

    If no blocks have as many outputs in all, these have a few more.
    """
    width = block_of(outputs) or min(_BEST, key=lambda width: -outputs % width)
    return -(-outputs // width), width


# How many inputs `narrow_product` reads at once, by their dtype.
NARROW_STEPS = {torch.uint8: 4, torch.bfloat16: 2, torch.float32: 1}


def vector_block(outputs: int) -> int:
    """How many outputs a block should have, if it must be a multiple of 16."""
    return min((64, 48, 32, 16), key=lambda width: -outputs % width)


@torch.library.custom_op(f"{NAMESPACE}::convolution", mutates_args=())
def convolution(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """A convolution with channels innermost, with weights that are stored in blocks.

    Parameters
    ----------
    x : Tensor
        (batch, height, width, channels).
    weight : Tensor
        (groups, blocks, kernel height, kernel width, channels of a group, outputs of a block).
    stride, dilation : sequence of int
        (over the height, over the width).
    padding : sequence of int
        Zeros left of the image, right of it, above and below it.

    Returns
    -------
    Tensor
        (batch, output height, output width, output channels).
    """
    groups, _, height, width, depth, _ = weight.shape
    plain = weight.permute(0, 1, 5, 4, 2, 3).reshape(-1, depth, height, width)
    return _convolved(x, plain, stride, padding, dilation, groups)


@convolution.register_fake
def _(x: Tensor, weight: Tensor, *geometry: Sequence[int]) -> Tensor:
    groups, blocks, height, width, _, block = weight.shape
    sizes = sizes_convolved(x.shape[1:3], (height, width), *geometry)
    return x.new_empty(x.shape[0], *sizes, groups * blocks * block)


@torch.library.custom_op(f"{NAMESPACE}::winograd", mutates_args=())
def winograd(x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    """A convolution by 3x3 pixels with channels innermost, by Winograd's algorithm F(2x2, 3x3).

    Sums of four pixels are multiplied, so an infinity or NaN also reaches the outputs next to it.

    Parameters
    ----------
    x : Tensor
        (batch, height, width, channels).
    weight : Tensor
        (blocks, 16, channels, outputs of a block): what `winograd_weight` made.
    padding : sequence of int
        As of `convolution`.

    Returns
    -------
    Tensor
        (batch, output height, output width, output channels).
    """
    kernels = weight.view(weight.shape[0], 4, 4, *weight.shape[2:])
    for dim in (1, 2):
        first, plus, minus, last = kernels.unbind(dim)
        kernels = torch.stack([first, plus - minus, last], dim)
    plain = kernels.permute(0, 4, 3, 1, 2).flatten(0, 1)
    return _convolved(x, plain, (1, 1), padding, (1, 1), 1)


@winograd.register_fake
def _(x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    sizes = sizes_convolved(x.shape[1:3], (3, 3), (1, 1), padding, (1, 1))
    return x.new_empty(x.shape[0], *sizes, weight.shape[0] * weight.shape[3])


def winograd_weight(weight: Tensor, block: int) -> Tensor:
    """What `winograd` multiplies by, from a weight of (outputs, channels, 3, 3)."""
    for dim in (2, 3):
        first, middle, last = weight.unbind(dim)
        ends, middle = (first + last) / 2, middle / 2
        weight = torch.stack([first, ends + middle, ends - middle, last], dim)
    blocks = weight.reshape(-1, block, *weight.shape[1:]).permute(0, 3, 4, 2, 1)
    return blocks.flatten(1, 2).clone(memory_format=torch.contiguous_format)


@torch.library.custom_op(f"{NAMESPACE}::depthwise", mutates_args=())
def depthwise(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """A convolution with channels innermost, and a separate kernel for each channel.

    Parameters
    ----------
    x : Tensor
        (batch, height, width, channels).
    weight : Tensor
        (kernel height, kernel width, channels).
    stride, padding, dilation : sequence of int
        As of `convolution`.

    Returns
    -------
    Tensor
        (batch, output height, output width, channels).
    """
    plain = weight.permute(2, 0, 1)[:, None]
    return _convolved(x, plain, stride, padding, dilation, weight.shape[2])


@depthwise.register_fake
def _(x: Tensor, weight: Tensor, *geometry: Sequence[int]) -> Tensor:
    sizes = sizes_convolved(x.shape[1:3], weight.shape[:2], *geometry)
    return x.new_empty(x.shape[0], *sizes, x.shape[3])


@torch.library.custom_op(f"{NAMESPACE}::blocked_product", mutates_args=())
def blocked_product(x: Tensor, weight: Tensor) -> Tensor:
    """A matrix product with weights that are stored in blocks of columns.

    Parameters
    ----------
    x : Tensor
        (rows, inputs).
    weight : Tensor
        (blocks, inputs, columns of a block).

    Returns
    -------
    Tensor
        (rows, blocks times columns of a block).
    """
    return torch.einsum("ri,biw->rbw", x, weight).flatten(1)


@blocked_product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * weight.shape[2])


@torch.library.custom_op(f"{NAMESPACE}::narrow_product", mutates_args=())
def narrow_product(x: Tensor, weight: Tensor) -> Tensor:
    """A matrix product with weights of 8 or 16 bits that are stored in blocks of columns.

    Parameters
    ----------
    x : Tensor
        (rows, inputs). Weights are int8 for uint8 and float32, and bfloat16 for bfloat16.
    weight : Tensor
        (blocks, steps, columns of a block, inputs of a step). The dtype of `x` decides how many
        inputs a step has; a block has a multiple of 16 columns.

    Returns
    -------
    Tensor
        (rows, blocks times columns of a block): exact sums of int32 for uint8, else float32.
    """
    dtype = _sums(x)
    columns = weight.permute(1, 3, 0, 2).flatten(2).flatten(0, 1)
    return torch.mm(x.to(dtype), columns.to(dtype))


@narrow_product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * weight.shape[2], dtype=_sums(x))


@torch.library.custom_op(f"{NAMESPACE}::stored", mutates_args=())
def stored(x: Tensor) -> Tensor:
    """The values of a tensor, which are computed once and stored, however often they are used."""
    return x.clone()


@stored.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _sums(x: Tensor) -> torch.dtype:
    return torch.int32 if x.dtype == torch.uint8 else torch.float32


def _convolved(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution of an image with channels innermost, with weights as torch has them."""
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), list(padding))
    result = torch.conv2d(padded, weight, None, stride, 0, dilation, groups)
    return result.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)


def sizes_convolved(
    image: Sequence[Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Any, Any]:
    """The height and width of the result of a convolution, from those of its arguments."""
    left, right, above, below = padding
    return (
        length(image[0] + above + below, kernel[0], stride[0], dilation[0]),
        length(image[1] + left + right, kernel[1], stride[1], dilation[1]),
    )


def windows(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The inputs of each output: (batch, *output sizes, *kernel, channels), not copied.

    The result is a view of the padded input, which has channels innermost. Padding is in the order
    of `torch.constant_pad_nd`: the last size first.
    """
    if math.prod(kernel) == 1 and not any(padding):
        for dim, step in enumerate(stride, start=1):
            x = x[(slice(None),) * dim + (slice(None, None, step),)]
        return x.view(*x.shape[:-1], *kernel, x.shape[-1])
    if any(padding):
        x = torch.constant_pad_nd(x, [0, 0, *padding], 0.0)
    # as_strided also makes Inductor compute the padded input once instead of in every window.
    x = x.clone(memory_format=torch.contiguous_format)
    batch, *sizes, channels = x.shape
    over_batch, *over, _ = x.stride()
    outputs = map(length, sizes, kernel, stride, dilation)
    steps = [place * step for place, step in zip(over, stride, strict=True)]
    within = [place * step for place, step in zip(over, dilation, strict=True)]
    return x.as_strided([batch, *outputs, *kernel, channels], [over_batch, *steps, *within, 1])


def length(size: int, kernel: int, stride: int, dilation: int) -> int:
    """The number of positions of a kernel along a padded dimension."""
    return (size - dilation * (kernel - 1) - 1) // stride + 1
