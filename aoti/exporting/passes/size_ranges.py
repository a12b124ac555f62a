"""Inductor's questions about dynamic sizes, with one of its faults mended.

Inductor asks whether one stride divides another. If both contain quotients of dynamic sizes, as
those of a convolution with steps do, torch may not find the range of the answer: it takes the
inverse of a size for a whole number, and the export would end with "Invalid ranges [0:-1]".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch._inductor.sizevars import SizeVarAllocator
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRangeError

_guard_or_false: Any = SizeVarAllocator.guard_or_false


def _or_false(self: SizeVarAllocator, left: Any) -> Any:
    try:
        return _guard_or_false(self, left)
    except ValueRangeError:
        return False


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """Let such a question have the answer "not known" while this process compiles."""
    with patch.object(SizeVarAllocator, "guard_or_false", _or_false):
        yield


def give_examples(program: torch.export.ExportedProgram) -> None:
    """Give the value in the examples to each size that only others are computed from.

    For an input of the size ``20*n``, torch may not know ``n``, although Inductor asks for it.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = program.graph_signature.user_inputs
    for name, example in zip(inputs, pytree.tree_leaves(program.example_inputs), strict=False):
        value = values.get(name) if isinstance(name, str) else None
        shapes = getattr(value, "shape", ()), getattr(example, "shape", ())
        for size, there in zip(*shapes, strict=False):
            if not isinstance(size, torch.SymInt) or len(size.node.expr.free_symbols) != 1:
                continue
            (symbol,) = size.node.expr.free_symbols
            known = size.node.shape_env.backed_var_to_val
            polynomial = size.node.expr.as_poly(symbol)
            if symbol not in known and polynomial is not None and polynomial.degree() == 1:
                scale, offset = polynomial.all_coeffs()
                known[symbol] = (there - offset) / scale
