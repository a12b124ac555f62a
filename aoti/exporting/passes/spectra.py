"""Fourier transforms to real numbers, by transforms that compiled code can call directly.

`_fft_c2r` is not among the functions that libtorch exports to compiled code: a package would call
it through libtorch's dispatcher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def real_transform(x: Tensor, dim: Sequence[int], normalization: int, last_dim_size: int) -> Any:
    """The decomposition of `aten._fft_c2r`: the real part of the transform of all frequencies.

    The frequencies that `x` leaves out are those that it has, mirrored and conjugated. The
    imaginary parts of the frequencies without a mirror image do not change the real part.
    """
    if x.device.type != "cpu" or not dim:
        return NotImplemented
    last = dim[-1] % x.dim()
    if len(dim) > 1:
        x = aten._fft_c2c.default(x, [*dim[:-1]], normalization, False)
    given = torch.view_as_real(x)
    kept = last_dim_size // 2 + 1
    mirrored = given.narrow(last, 1, last_dim_size - kept).flip(last)
    conjugated = torch.stack([mirrored[..., 0], -mirrored[..., 1]], -1)
    whole = torch.cat([given.narrow(last, 0, kept), conjugated], last)
    turned = aten._fft_c2c.default(torch.view_as_complex(whole), [last], normalization, False)
    return torch.view_as_real(turned)[..., 0].contiguous()
