"""Operators that Inductor compiles to wrong values on CPUs, in other words that it compiles right.

With vectors of 256 bits, which portable packages have, reductions of 8-bit integers read elements
that are not there, compare unsigned numbers as signed ones, or fail to wrap around. The remainder
and the floored quotient of floats are computed as ``a - floor(a / b) * b``, which loses the result
of a large quotient, and is nan for an infinite divisor. `aten` uses ``fmod``.

Operators of complex numbers are replaced, too: see `aoti.exporting.passes.complex_numbers`.

These are decompositions: Inductor applies them wherever it meets the operator, also inside of other
operators and of subgraphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._inductor import decomposition as inductor

from aoti.exporting.passes.complex_numbers import of_complex_numbers

aten = torch.ops.aten

_NARROW = {torch.int8, torch.uint8}
_WIDE = torch.int32
_AUTOGRAD = torch._C.DispatchKey.Autograd

_Decomposition = Callable[..., Any]


@contextlib.contextmanager
def corrected(*, wanted: bool = True) -> Iterator[None]:
    """Let Inductor decompose these operators while it compiles in this process."""
    if not wanted:
        yield
        return
    before = inductor.decompositions
    table = {operator: _after(ours, before.get(operator)) for operator, ours in _table().items()}
    with contextlib.ExitStack() as patches:
        patches.callback(_forget, table)
        patches.enter_context(patch.dict(before, table))
        for operator, decompose in table.items():
            if _AUTOGRAD in operator.py_kernels:  # decomposed before the table is looked at
                kernel = {_AUTOGRAD: decompose}
                patches.enter_context(patch.dict(operator.py_kernels, kernel))
        _forget(table)
        yield


def _forget(operators: Iterable[Any]) -> None:
    """Clear what torch keeps of decompositions that were looked up."""
    inductor.fast_random_decomps.cache_clear()
    for operator in operators:
        operator._dispatch_cache.clear()


def _after(ours: _Decomposition, theirs: _Decomposition | None) -> _Decomposition:
    """Our decomposition, and for what it is not for, that which was there before."""

    def decompose(*args: Any, **kwargs: Any) -> Any:
        found = ours(*args, **kwargs)
        if found is NotImplemented and theirs is not None:
            return theirs(*args, **kwargs)
        return found

    return decompose


def _table() -> dict[Any, _Decomposition]:
    table: dict[Any, _Decomposition] = of_complex_numbers()
    for operator in (aten.argmax.default, aten.argmin.default):
        table[operator] = _widened(operator, back=False)
    for operator in (
        *(aten.max.default, aten.max.dim, aten.amax.default),
        *(aten.min.default, aten.min.dim, aten.amin.default),
    ):
        table[operator] = _widened(operator, back=True)
    for operator in (
        *(aten.sum.default, aten.sum.dim_IntList, aten.prod.default, aten.prod.dim_int),
        *(aten.cumsum.default, aten.cumprod.default),
    ):
        table[operator] = _accumulated(operator)
    for operator in (aten.any.default, aten.any.dim, aten.any.dims):
        table[operator] = _any(operator)
    for operator in (aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor):
        table[operator] = _remainder
    for operator in (aten.fmod.Tensor, aten.fmod.Scalar):
        table[operator] = _fmod_of_floats
    for operator, combined in (
        (aten.addcmul.default, torch.mul),
        (aten.addcdiv.default, torch.div),
    ):
        table[operator] = _scaled_first(combined)
    for operator in (aten.div.Tensor_mode, aten.div.Scalar_mode):
        table[operator] = _divide
    for operator in (aten.floor_divide.default, aten.floor_divide.Scalar):
        table[operator] = _floor_divide
    table[aten.pow.Scalar] = _pow_of_number
    table[aten.acosh.default] = _acosh
    table[aten.nextafter.default] = _nextafter
    table[aten.softshrink.default] = _softshrink
    table[aten.multilabel_margin_loss_forward.default] = _multilabel_margin_loss
    return table


# -- integers of 8 bits ----------------------------------------------------------------------------


def _widened(operator: Any, *, back: bool) -> _Decomposition:
    """A reduction in a wider type; with `back`, its values get their type again."""

    def decompose(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if x.dtype not in {*_NARROW, torch.bool} or not _on_cpu(x):
            return NotImplemented
        result = operator(x.to(_WIDE), *args, **kwargs)
        if not back:
            return result
        if isinstance(result, Tensor):
            return result.to(x.dtype)
        values, indices = result
        return values.to(x.dtype), indices

    return decompose


def _accumulated(operator: Any) -> _Decomposition:
    """A sum or a product with a narrow result: the last bits of one with a wider result."""

    def decompose(x: Tensor, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        if dtype not in _NARROW or not _on_cpu(x):
            return NotImplemented
        # What is summed is converted first: 300 counts as 44.
        return operator(x.to(dtype), *args, dtype=_WIDE, **kwargs).to(dtype)

    return decompose


def _any(operator: Any) -> _Decomposition:
    """`any` of uint8, which is uint8 for `aten`, and bool for Inductor."""

    def decompose(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if x.dtype != torch.uint8:
            return NotImplemented
        return operator(x != 0, *args, **kwargs).to(x.dtype)

    return decompose


# -- quotients of floats ---------------------------------------------------------------------------


def _remainder(a: Any, b: Any) -> Any:
    """The remainder with the sign of the divisor: aten/src/ATen/native/cpu/BinaryOpsKernel.cpp."""
    operands = _floats(a, b)
    if operands is None:
        return NotImplemented
    a, b, dtype = operands
    left = _fmod(a, b)
    return torch.where((left != 0) & ((b < 0) != (left < 0)), left + b, left).to(dtype)


def _divide(a: Any, b: Any, *, rounding_mode: str | None) -> Any:
    return _floor_divide(a, b) if rounding_mode == "floor" else NotImplemented


def _floor_divide(a: Any, b: Any) -> Any:
    """The floored quotient: div_floor_floating of c10/util/generic_math.h."""
    operands = _floats(a, b)
    if operands is None:
        return NotImplemented
    a, b, dtype = operands
    quotient = a / b
    left = _fmod(a, b)
    whole = (a - left) / b
    whole = torch.where((left != 0) & ((b < 0) != (left < 0)), whole - 1, whole)
    floored = torch.floor(whole)
    floored = torch.where(whole - floored > 0.5, floored + 1, floored)
    zero = torch.copysign(torch.zeros_like(quotient), quotient)
    result = torch.where(whole != 0, floored, zero)
    return torch.where(b == 0, quotient, result).to(dtype)


def _fmod(a: Tensor, b: Tensor) -> Tensor:
    """What is left of a division. The generated code of float32 fails for the smallest divisors."""
    return torch.fmod(a.double(), b.double()).to(a.dtype)


def _fmod_of_floats(a: Any, b: Any) -> Any:
    operands = _floats(a, b)
    if operands is None:
        return NotImplemented
    a, b, dtype = operands
    return NotImplemented if a.dtype == torch.float64 else _fmod(a, b).to(dtype)


# -- other operators -------------------------------------------------------------------------------


def _scaled_first(combined: Callable[[Tensor, Tensor], Tensor]) -> _Decomposition:
    """`addcmul` and `addcdiv` in the order of aten, in which the last step need not overflow."""

    def decompose(a: Tensor, b: Tensor, c: Tensor, *, value: float = 1) -> Any:
        dtype = torch.result_type(torch.add(a, b), c)
        if value == 1 or not dtype.is_floating_point or not _on_cpu(a):
            return NotImplemented
        return (a + combined(value * b.to(dtype), c.to(dtype))).to(dtype)

    return decompose


def _pow_of_number(base: Any, exponent: Tensor) -> Any:
    """A number to the power of integers, which is float32 for Inductor."""
    dtype = torch.result_type(base, exponent)
    if dtype.is_floating_point or dtype.is_complex or not _on_cpu(exponent):
        return NotImplemented
    power = torch.full((), base, dtype=dtype, device=exponent.device)
    return torch.pow(power, exponent.to(dtype))


def _acosh(x: Tensor) -> Any:
    """`acosh` without the square of its argument, which overflows above 1e19."""
    if x.dtype not in {torch.float32, torch.bfloat16} or not _on_cpu(x):
        return NotImplemented
    return torch.acosh(x.double()).to(x.dtype)


def _nextafter(a: Tensor, b: Tensor) -> Any:
    """The next number of 16 bits; Inductor computes that of 32 bits, and rounds it to `a`.

    All on integers, since generated code need not round floats of 16 bits before it uses them.
    """
    infinity = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}.get(a.dtype)
    if infinity is None or a.dtype != b.dtype or not _on_cpu(a):
        return NotImplemented
    bits = [x.view(torch.int16).to(torch.int32) for x in aten.broadcast_tensors([a, b])]
    start, end = bits
    # In the order of the numbers; both zeros are 0.
    here, there = (torch.where(x < 0, -0x8000 - x, x) for x in bits)
    step = here + torch.sign(there - here)
    found = torch.where((step < 0) | ((step == 0) & (start < 0)), -0x8000 - step, step)
    found = torch.where(here == there, end, found)
    is_nan = (here.abs() > infinity) | (there.abs() > infinity)
    return torch.where(is_nan, 0x7FFF, found).to(torch.int16).view(a.dtype)


def _softshrink(x: Tensor, lambd: float = 0.5) -> Any:
    """Soft thresholding that keeps nan."""
    if not _on_cpu(x):
        return NotImplemented
    wide = x.float() if x.dtype.itemsize < 4 else x
    return torch.where(wide.abs() <= lambd, 0.0, wide - torch.sign(wide) * lambd).to(x.dtype)


def _multilabel_margin_loss(x: Tensor, target: Tensor, reduction: int) -> Any:
    """The loss over the labels before the first -1 only; Inductor counts the others as label 0."""
    rows, labels = aten.atleast_2d(x), aten.atleast_2d(target)
    classes = rows.shape[1]
    places = torch.arange(classes, device=x.device)
    end = torch.where(labels == -1, places, classes).amin(1, keepdim=True)
    given = places < end
    scores = rows.gather(1, torch.where(given, labels, 0))
    # Of shape (row, label, class).
    is_label = ((labels[:, :, None] == places) & given[:, :, None]).any(1)
    margins = (1 - scores[:, :, None] + rows[:, None, :]).clamp_min(0)
    counted = given[:, :, None] & ~is_label[:, None, :]
    losses = (torch.where(counted, margins, 0) / classes).sum((1, 2))
    mean, total = 1, 2  # at::Reduction
    if reduction == mean:
        loss = losses.mean()
    elif reduction == total:
        loss = losses.sum()
    else:
        loss = losses.reshape(x.shape[:-1])
    return loss, is_label.to(x.dtype).reshape(target.shape)


def _floats(a: Any, b: Any) -> tuple[Tensor, Tensor, torch.dtype] | None:
    """Both operands in the type that aten computes in, and that of the result; None: no floats."""
    dtype = torch.result_type(a, b)
    tensors = [operand for operand in (a, b) if isinstance(operand, Tensor)]
    if not dtype.is_floating_point or not all(map(_on_cpu, tensors)):
        return None
    wide = torch.float32 if dtype.itemsize < 4 else dtype
    device = tensors[0].device

    def converted(operand: Any) -> Tensor:
        if isinstance(operand, Tensor):
            return operand.to(dtype).to(wide)
        return torch.full((), operand, dtype=dtype, device=device).to(wide)

    return converted(a), converted(b), dtype


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu"
