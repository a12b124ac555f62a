"""Calls joined into one: inputs one after the other along a dimension that holds their rows."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aoti.engine._core._tensor import Tensor
from aoti.signature.signature import Signature
from aoti.signature.size_guard import Range, SizeGuard, sizes_that_break
from aoti.signature.spec import Dim, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


_MOST_TRIED = 10_000  # sizes, to find out whether a guard refuses any of them


@dataclass(frozen=True, slots=True)
class Rows:
    """Where a tensor has its rows: the dimension, and how many of its elements are one row."""

    axis: int = 0
    scale: int = 1

    def count(self, array: Any) -> int | None:
        """How many rows an array has; None if it cannot be divided into rows."""
        if array.ndim <= self.axis or array.shape[self.axis] % self.scale:
            return None
        return int(array.shape[self.axis]) // self.scale

    def cut(self, array: Any, start: int, stop: int) -> Any:
        """The rows from `start` to before `stop`: a view if no other row shares its memory."""
        part = array[(slice(None),) * self.axis + (slice(start * self.scale, stop * self.scale),)]
        torch = hasattr(array, "stride")
        strides = array.stride() if torch else getattr(array, "strides", None)
        if strides is None:  # jax, whose slices are copies
            return part
        step = strides[self.axis]
        sizes = zip(array.shape, strides, strict=True)
        others = [(n - 1) * s for d, (n, s) in enumerate(sizes) if d != self.axis]
        if min(others, default=0) >= 0 and sum(others) + (1 if torch else array.itemsize) <= step:
            return part
        return part.clone() if torch else part.copy(order="K")


@dataclass(frozen=True, slots=True)
class Batches:
    """How calls of a model can be joined.

    Attributes
    ----------
    dim : str
        The name of the dimension that holds the rows.
    inputs : tuple of Rows or None
        Where each input has its rows. An input without rows must be the same in all joined calls.
    outputs : tuple of Rows
        Where each output has its rows.
    min_rows, max_rows : int or None
        How many rows the model takes, if the package says.
    """

    dim: str
    inputs: tuple[Rows | None, ...]
    outputs: tuple[Rows, ...]
    min_rows: int | None = None
    max_rows: int | None = None

    @classmethod
    def all_of(cls, signature: Signature) -> list[Batches]:
        """The dimensions along which calls might be joined: free sizes that all outputs have.

        A size is not free if another size or the values of an index depend on it, or if a guard
        restricts it.

        That a model takes any number of rows does not say that it treats them apart: see `same`.
        """
        inputs, outputs = signature.inputs or (), signature.outputs or ()
        if not outputs or any(spec.shape is None for spec in (*inputs, *outputs)):
            return []
        if any(spec.mutated for spec in inputs):
            return []
        sizes = [size for spec in inputs for size in spec.shape or ()]
        names = dict.fromkeys(size.form[0] for size in sizes if isinstance(size, Dim))
        found = [cls._along(name, signature, inputs, outputs) for name in names]
        return [batches for batches in found if batches is not None]

    @classmethod
    def of(cls, signature: Signature) -> Batches | None:
        """Those along the first dimension of all outputs, and of all inputs that have it.

        The result is None if the signature has no such dimension.
        """
        for batches in cls.all_of(signature):
            if not any(rows and rows.axis for rows in (*batches.inputs, *batches.outputs)):
                return batches
        return None

    @classmethod
    def _along(
        cls,
        name: str,
        signature: Signature,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> Batches | None:
        word = re.compile(rf"\b{re.escape(name)}\b")
        if any(_restricts(guard, name, signature.ranges) for guard in signature.guards):
            return None
        if any(word.search(str(size)) for spec in inputs for size in spec.values or ()):
            return None
        places: list[Rows | None] = []
        for spec in (*inputs, *outputs):
            axes = [n for n, size in enumerate(spec.shape or ()) if word.search(str(size))]
            if not axes:
                places.append(None)
                continue
            size = (spec.shape or ())[axes[0]]
            assert isinstance(size, Dim)
            symbol, scale, offset = size.form
            if len(axes) > 1 or symbol != name or offset or scale < 1:
                return None
            places.append(Rows(axes[0], scale))
        results = [rows for rows in places[len(inputs) :] if rows is not None]
        if len(results) < len(outputs):
            return None
        bounds = signature.ranges.get(name, (None, None))
        return cls(name, tuple(places[: len(inputs)]), tuple(results), *bounds)

    def rows(self, inputs: Sequence[Array]) -> int | None:
        """How many rows the inputs of a call have; None if they do not agree."""
        if len(inputs) != len(self.inputs):
            return None
        counts = {
            rows.count(array) for rows, array in zip(self.inputs, inputs, strict=True) if rows
        }
        return counts.pop() if len(counts) == 1 else None

    def key(self, inputs: Sequence[Array]) -> Hashable:
        """Calls with the same key can be joined; None means that it cannot."""
        count = self.rows(inputs)
        if count is None or count < (self.min_rows or 0):
            return None
        return tuple(
            (array.dtype, array.shape, array.tobytes())
            if rows is None
            else (array.dtype, array.shape[: rows.axis], array.shape[rows.axis + 1 :])
            for rows, array in zip(self.inputs, inputs, strict=True)
        )

    def join(self, calls: Sequence[Sequence[Array]]) -> list[Array]:
        """The inputs of one call in place of several with the same key."""
        import numpy as np

        return [
            arrays[0] if rows is None else np.concatenate(arrays, axis=rows.axis)
            for rows, arrays in zip(self.inputs, zip(*calls, strict=True), strict=True)
        ]

    def split(self, outputs: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
        """The outputs of each call, from those of the joined one and the numbers of rows."""
        start, parts = 0, []
        for count in counts:
            cut = zip(self.outputs, outputs, strict=True)
            parts.append([rows.cut(output, start, start + count) for rows, output in cut])
            start += count
        return parts


def _restricts(guard: str, name: str, ranges: Mapping[str, Range]) -> bool:
    """Whether a guard might refuse sizes that the range of a symbol allows."""
    symbols = SizeGuard.parse(guard).symbols
    if name not in symbols:
        return False
    low, high = ranges.get(name, (None, None))
    if symbols != {name} or high is None or high > _MOST_TRIED:
        return True
    return sizes_that_break(guard, ranges, {name: low or 0}) is not None


def differ(first: Sequence[Array], second: Sequence[Array]) -> bool:
    """Whether two calls have different inputs. Those that have the same show nothing: see `same`.

    Any model may compute the same for two rows that are the same.
    """
    return any(
        one.shape != other.shape or one.tobytes() != other.tobytes()
        for one, other in zip(first, second, strict=True)
    )


def same(alone: Any, joined: Any) -> bool:
    """Whether two outputs are equal except for the order of additions in kernels.

    So a model is shown to treat rows apart: by the outputs of a call that is run alone, and those
    that it gets from a joined call.
    """
    import numpy as np

    alone, joined = as_numpy(alone), as_numpy(joined)
    if alone.shape != joined.shape:
        return False
    if alone.dtype.kind in "biu":
        return bool(np.array_equal(alone, joined))
    kind = np.complex128 if alone.dtype.kind == "c" else np.float64
    tolerance = 1e-3 if alone.dtype.itemsize >= 4 else 2e-2
    first, second = alone.astype(kind), joined.astype(kind)
    return bool(np.allclose(first, second, rtol=tolerance, atol=tolerance / 10, equal_nan=True))


def as_numpy(array: Any) -> Array:
    """A numpy array over the memory of an array on the CPU."""
    import numpy as np

    return array if isinstance(array, np.ndarray) else Tensor.from_dlpack(array).numpy()
