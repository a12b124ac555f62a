"""The first run of a model, made before anybody waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aoti.errors import ConfigError
from aoti.spec import Dim, TensorSpec, numpy_dtype

if TYPE_CHECKING:
    from aoti.model import AOTIModel
    from aoti.signature import Range


def warm_up(model: AOTIModel, inputs: Sequence[Any] | None) -> None:
    """Read in mapped weights and run once: threads are started, symbols bound, pages there.

    Parameters
    ----------
    model : AOTIModel
        A model that nothing runs on yet.
    inputs : sequence of arrays, or None
        For a flat run. None: zeros, or the least value that an index may have, in the smallest
        sizes that the model takes.

    Raises
    ------
    ConfigError
        There are no inputs, and the package does not tell what the model takes.
    InputError, ExecutionError, ConstantError
        As for a run.
    """
    model._weights.populate()
    model.run(_smallest(model) if inputs is None else inputs)


def _smallest(model: AOTIModel) -> list[Any]:
    import numpy as np

    arrays = []
    for spec in model.inputs or ():
        if spec.dtype is None or spec.shape is None:
            break
        ranges = model.signature.ranges
        shape = [_least(size, ranges) for size in spec.shape]
        arrays.append(np.full(shape, _value(spec, ranges), dtype=_dtype(spec.dtype)))
    if model.inputs is None or len(arrays) < len(model.inputs):
        raise ConfigError(
            f"warmup=True: {model.path} does not tell what inputs the model takes; pass warmup= a "
            "list of arrays for a flat run"
        )
    return arrays


def _dtype(name: str) -> Any:
    try:
        return numpy_dtype(name)
    except ValueError as error:
        raise ConfigError(
            f"warmup=True: {error}; or pass warmup= a list of arrays for a flat run"
        ) from error


def _value(spec: TensorSpec, ranges: Mapping[str, Range]) -> int:
    return 0 if spec.values is None else _least(spec.values[0], ranges)


def _least(size: int | Dim, ranges: Mapping[str, Range]) -> int:
    if not isinstance(size, Dim):
        return size
    symbol, scale, offset = size.form
    return scale * max(1, ranges.get(symbol, (None, None))[0] or 1) + offset
