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

from torch._inductor.sizevars import SizeVarAllocator
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
