"""Calls joined into one: inputs one after the other along a first dimension that they share."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aoti.signature.signature import Signature
from aoti.signature.size_guard import SizeGuard
from aoti.signature.spec import Dim

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Batches:
    """How calls of a model can be joined.

    Attributes
    ----------
    min_rows, max_rows : int or None
        What the model takes along its first dimension, if the package says.
    """

    min_rows: int | None
    max_rows: int | None

    @classmethod
    def of(cls, signature: Signature) -> Batches | None:
        """None if the first dimension of all inputs and outputs is not one and the same free size.

        A size with a guard is not free.

        That a model takes any number of rows does not say that it treats them apart: compare the
        results of one joined call.
        """
        specs = (*(signature.inputs or ()), *(signature.outputs or ()))
        if not signature.inputs or not signature.outputs or any(not spec.shape for spec in specs):
            return None
        first = {spec.shape[0] for spec in specs if spec.shape}
        names = {str(size) for size in first}
        others = {str(size) for spec in specs for size in (spec.shape or ())[1:]}
        rows = next(iter(first))
        if len(names) > 1 or not isinstance(rows, Dim) or rows.form != (rows.name, 1, 0):
            return None
        if any(re.search(rf"\b{re.escape(rows.name)}\b", other) for other in others):
            return None
        if any(spec.mutated for spec in signature.inputs):
            return None
        if any(rows.name in SizeGuard.parse(guard).symbols for guard in signature.guards):
            return None
        return cls(*signature.ranges.get(rows.name, (None, None)))

    def key(self, inputs: Sequence[Array]) -> Hashable:
        """Calls with the same key can be joined; None means that it cannot."""
        rows = {array.shape[0] if array.ndim else None for array in inputs}
        (first, *more) = rows
        if more or first is None or first < (self.min_rows or 0):
            return None
        return tuple((array.dtype, array.shape[1:]) for array in inputs)

    @staticmethod
    def join(calls: Sequence[Sequence[Array]]) -> list[Array]:
        """The inputs of one call in place of several with the same key."""
        import numpy as np

        return [np.concatenate(arrays) for arrays in zip(*calls, strict=True)]

    @staticmethod
    def split(outputs: Sequence[Any], calls: Sequence[Sequence[Array]]) -> list[list[Any]]:
        """The outputs of each call, from those of the joined one."""
        start, parts = 0, []
        for inputs in calls:
            stop = start + inputs[0].shape[0]
            parts.append([output[start:stop] for output in outputs])
            start = stop
        return parts
