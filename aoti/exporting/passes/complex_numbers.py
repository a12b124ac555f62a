"""Operators of complex numbers, in words that compiled code can call directly.

Inductor generates no code for complex numbers. Their operators are calls of libtorch, and most are
not among the functions that libtorch exports to compiled code: a package would call them through
libtorch's dispatcher. Here they are operators of the real and imaginary parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

Decomposition = Callable[..., Any]


def of_complex_numbers() -> dict[Any, Decomposition]:
    """The decompositions by operator."""
    table: dict[Any, Decomposition] = {aten._fft_c2r.default: _real_transform}
    for operator in (aten.bmm.default, aten.mm.default):
        table[operator] = _product(operator)
    for operator in (aten.select.int, aten.squeeze.dims, aten.flip.default):
        table[operator] = _along(operator)
    table[aten.unsqueeze.default] = _unsqueeze
    table[aten.expand.default] = _expand
    table[aten.constant_pad_nd.default] = _pad
    return table


def _is_complex(x: Tensor) -> bool:
    return x.is_complex() and x.device.type == "cpu"


def _product(operator: Any) -> Decomposition:
    """A matrix product, as four of real numbers."""

    def decompose(a: Tensor, b: Tensor) -> Any:
        if not _is_complex(a) or not _is_complex(b):
            return NotImplemented
        real, imaginary = torch.view_as_real(a).unbind(-1)
        other, turned = torch.view_as_real(b).unbind(-1)
        parts = (
            operator(real, other) - operator(imaginary, turned),
            operator(real, turned) + operator(imaginary, other),
        )
        return torch.view_as_complex(torch.stack(parts, -1))

    return decompose


def _along(operator: Any) -> Decomposition:
    """An operator that takes a dimension, or several, after the tensor."""

    def decompose(x: Tensor, dim: int | Sequence[int], *args: Any) -> Any:
        if not _is_complex(x):
            return NotImplemented
        rank = max(x.dim(), 1)
        dims = dim % rank if isinstance(dim, int) else [each % rank for each in dim]
        return torch.view_as_complex(operator(torch.view_as_real(x), dims, *args))

    return decompose


def _unsqueeze(x: Tensor, dim: int) -> Any:
    if not _is_complex(x):
        return NotImplemented
    return torch.view_as_complex(torch.view_as_real(x).unsqueeze(dim % (x.dim() + 1)))


def _expand(x: Tensor, size: Sequence[Any], **_: Any) -> Any:
    if not _is_complex(x):
        return NotImplemented
    return torch.view_as_complex(torch.view_as_real(x).expand([*size, 2]))


def _pad(x: Tensor, pad: Sequence[Any], value: float = 0) -> Any:
    if not _is_complex(x) or value != 0:
        return NotImplemented
    return torch.view_as_complex(aten.constant_pad_nd.default(torch.view_as_real(x), [0, 0, *pad]))


def _real_transform(x: Tensor, dim: Sequence[int], normalization: int, last_dim_size: int) -> Any:
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
