"""Operators of our own that rewritten graphs call.

`aoti.exporting.templates` makes kernels of them; here is what they compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "aoti"


@torch.library.custom_op(f"{NAMESPACE}::convolution", mutates_args=())
def convolution(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """A convolution with the channels innermost.

    Parameters
    ----------
    x : Tensor
        (batch, height, width, channels).
    weight : Tensor
        (kernel height, kernel width, channels, output channels).
    stride, dilation : sequence of int
        (over the height, over the width).
    padding : sequence of int
        Zeros left of the image, right of it, above and below it.

    Returns
    -------
    Tensor
        (batch, output height, output width, output channels).
    """
    padded = torch.constant_pad_nd(x, [0, 0, *padding])
    over_batch, over_height, over_width, over_channels = padded.stride()
    batch, height, width, _ = convolved(x.shape, weight.shape, stride, padding, dilation)
    windows = padded.as_strided(
        [batch, height, width, *weight.shape[:3]],
        [
            *(over_batch, over_height * stride[0], over_width * stride[1]),
            *(over_height * dilation[0], over_width * dilation[1], over_channels),
        ],
    )
    return torch.einsum("bhwklc,klco->bhwo", windows, weight)


@convolution.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    return x.new_empty(convolved(x.shape, weight.shape, stride, padding, dilation))


def convolved(
    x: Sequence[Any],
    weight: Sequence[Any],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Any, Any, Any, Any]:
    """The shape that `convolution` gives, from the shapes of what it is given."""
    left, right, above, below = padding
    return (
        x[0],
        length(x[1] + above + below, weight[0], stride[0], dilation[0]),
        length(x[2] + left + right, weight[1], stride[1], dilation[1]),
        weight[3],
    )


def length(size: int, kernel: int, stride: int, dilation: int) -> int:
    """How many places a kernel has along a padded dimension."""
    return (size - dilation * (kernel - 1) - 1) // stride + 1
