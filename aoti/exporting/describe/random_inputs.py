"""Random inputs over the whole ranges of a signature."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from aoti.signature.signature import Signature
from aoti.signature.size_expr import affine
from aoti.signature.size_guard import sizes_that_break, sizes_that_hold
from aoti.signature.spec import ConstantSpec, Dim, TensorSpec, evaluate

Sizes = dict[str, int]

_MAX_ELEMENTS = 1 << 23  # of all inputs together: ranges are often larger than memory
_RANDOM_SIZES = 2  # sets of random sizes


def sizes_to_try(signature: Signature, example: Sizes, generator: torch.Generator) -> list[Sizes]:
    """The sizes to try: the ends of every range, 0 and 1 if it contains them, some in between.

    All guards hold for them: see `sizes_to_refuse` for others.

    Parameters
    ----------
    signature : Signature
        The signature of the model.
    example : dict of str to int
        The sizes of the example arguments.
    generator : torch.Generator
        The source of random sizes.
    """
    symbols = [symbol for symbol in signature.ranges if symbol in example]
    ends = {symbol: _ends(signature, symbol, example) for symbol in symbols}
    found = [dict(example)]
    for n in (0, -1):  # all sizes at one end together
        found.append(_fitting(signature, {s: (ends[s][0], ends[s][-1])[n] for s in symbols}))
    for symbol in symbols:
        beside = min(example[symbol] + 1, ends[symbol][-1])  # one is even, and one is odd
        for size in (*ends[symbol], beside):
            found.append(_fitting(signature, {**example, symbol: size}))
    for _ in range(_RANDOM_SIZES if symbols else 0):
        found.append(
            _fitting(
                signature,
                {
                    s: int(torch.randint(ends[s][0], ends[s][-1] + 1, (1,), generator=generator))
                    for s in symbols
                },
            )
        )
    allowed = (sizes_that_hold(signature.guards, signature.ranges, sizes) for sizes in found)
    return _distinct(sizes for sizes in allowed if sizes is not None)


def sizes_to_refuse(signature: Signature, example: Sizes) -> list[Sizes]:
    """For each guard, sizes in their ranges for which it does not hold."""
    found = (sizes_that_break(guard, signature.ranges, example) for guard in signature.guards)
    small = (sizes for sizes in found if sizes and _elements(signature, sizes) <= _MAX_ELEMENTS)
    return _distinct(small)


def _distinct(found: Iterable[Sizes]) -> list[Sizes]:
    return [dict(sizes) for sizes in dict.fromkeys(tuple(sizes.items()) for sizes in found)]


def example_sizes(signature: Signature, leaves: Sequence[Any]) -> Sizes:
    """The values of the symbols in the example arguments."""
    sizes: Sizes = {}
    for spec, leaf in zip(signature.arguments or (), leaves, strict=True):
        for dim, size in _dims(spec):
            if affine(size.name) is not None:
                symbol, scale, offset = size.form
                sizes[symbol] = (leaf.shape[dim] - offset) // scale
    return sizes


def is_computable(signature: Signature) -> bool:
    """Whether every size can be computed from the symbols."""
    arguments = signature.arguments or ()
    return all(affine(size.name) is not None for spec in arguments for _, size in _dims(spec))


def random_leaves(
    signature: Signature,
    examples: Sequence[Any],
    sizes: Mapping[str, int],
    generator: torch.Generator,
) -> list[Any]:
    """Arguments of these sizes in flat order, with values like those of the examples.

    Floats have the mean and the spread of the examples; integers are within the range of the
    examples, or of the tables that they index. Arguments that are not tensors stay as they are.
    """
    return [
        example
        if isinstance(spec, ConstantSpec)
        else _random(
            spec, example, [evaluate(size, sizes) for size in spec.shape or ()], sizes, generator
        )
        for spec, example in zip(signature.arguments or (), examples, strict=True)
    ]


def _ends(signature: Signature, symbol: str, example: Sizes) -> list[int]:
    low, high = signature.ranges[symbol]
    low = low or 0
    if high is None:
        high = max(4 * example[symbol], low)
    return sorted({low, high, *(size for size in (0, 1) if low <= size <= high)})


def _fitting(signature: Signature, sizes: Sizes) -> Sizes:
    """The same sizes, with the largest ones reduced until the inputs fit into memory."""
    sizes = dict(sizes)
    while _elements(signature, sizes) > _MAX_ELEMENTS:
        largest = max(sizes, key=sizes.__getitem__)
        low = signature.ranges[largest][0] or 0
        if sizes[largest] <= max(low, 1):
            break
        sizes[largest] = max(sizes[largest] // 2, low, 1)
    return sizes


def _elements(signature: Signature, sizes: Sizes) -> int:
    return sum(
        math.prod(evaluate(size, sizes) for size in spec.shape or ())
        for spec in signature.inputs or ()
    )


def _random(
    spec: TensorSpec,
    example: torch.Tensor,
    shape: Sequence[int],
    sizes: Mapping[str, int],
    generator: torch.Generator,
) -> torch.Tensor:
    dtype, device = example.dtype, example.device
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool().to(device)
    if dtype.is_floating_point or dtype.is_complex:
        mean, spread = 0.0, 1.0
        values = example.detach().to("cpu", torch.complex128 if dtype.is_complex else torch.float64)
        if not dtype.is_complex and values.numel() > 1 and bool(values.isfinite().all()):
            mean, spread = float(values.mean()), float(values.std()) or 1.0
        drawn = torch.randn(shape, generator=generator, dtype=values.dtype) * spread + mean
        return drawn.to(device, dtype)
    if spec.values is not None:
        low, high = (evaluate(bound, sizes) for bound in spec.values)
    else:
        whole = example.detach().cpu().to(torch.int64)
        low, high = (int(whole.min()), int(whole.max())) if whole.numel() else (0, 1)
    if high < low:  # a table without rows
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.randint(low, high + 1, shape, generator=generator).to(device, dtype)


def _dims(spec: TensorSpec | ConstantSpec) -> Iterator[tuple[int, Dim]]:
    if isinstance(spec, TensorSpec):
        for dim, size in enumerate(spec.shape or ()):
            if isinstance(size, Dim):
                yield dim, size
