"""Makes inputs for a model from its signature: zeros, or random values of chosen sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aoti.errors import ConfigError
from aoti.signature.dtypes import numpy_dtype
from aoti.signature.signature import Signature
from aoti.signature.size_guard import sizes_that_hold
from aoti.signature.spec import Dim, TensorSpec, evaluate


def least_sizes(signature: Signature) -> dict[str, int]:
    """Small values of the symbols of the inputs: the smallest, except 0, that guards allow."""
    symbols = {
        size.form[0]
        for spec in signature.inputs or ()
        for size in spec.shape or ()
        if isinstance(size, Dim)
    }
    ranges = signature.ranges
    least = {name: max(1, ranges.get(name, (None, None))[0] or 1) for name in sorted(symbols)}
    return sizes_that_hold(signature.guards, ranges, least) or least


def zeros(signature: Signature) -> list[Any]:
    """Zeros in the smallest sizes, or the least value that an index may have.

    Returns
    -------
    list of numpy.ndarray
        In flat order.

    Raises
    ------
    ConfigError
        The package does not describe the inputs, or numpy lacks a dtype.
    """
    import numpy as np

    sizes = least_sizes(signature)
    arrays = []
    for spec in _known(signature):
        value = 0 if spec.values is None else _size(spec.values[0], sizes)
        arrays.append(np.full(_shape(spec, sizes), value, _dtype(spec)))
    return arrays


def random(signature: Signature, sizes: Mapping[str, int], seed: int = 0) -> list[Any]:
    """Random inputs of these sizes: the same for the same seed.

    Floats are normally distributed, and indices cover the tables that they index. Other integers
    are ones, as in a mask, or zeros if the package does not say which inputs are indices.

    Parameters
    ----------
    signature : Signature
        What the model takes.
    sizes : mapping of str to int
        The values of the symbols.
    seed : int
        The seed of the random generator.

    Returns
    -------
    list of numpy.ndarray
        In flat order, in the memory layout that the kernels take.

    Raises
    ------
    ConfigError
        As `zeros`.
    InputError
        Elements share memory in the layout that the model takes.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    arrays = []
    for spec in _known(signature):
        shape, dtype = _shape(spec, sizes), _dtype(spec)
        values: Any
        if dtype.kind == "b":
            values = generator.integers(0, 2, shape)
        elif dtype.kind not in "iu":
            values = generator.standard_normal(shape)
            if dtype.kind == "c":
                values = values + 1j * generator.standard_normal(shape)
        elif spec.values is not None:
            low, high = (_size(bound, sizes) for bound in spec.values)
            values = generator.integers(low, max(low, high), shape, endpoint=True)
        else:
            is_no_index = signature.enforced and spec.name not in signature.unchecked_indices
            values = np.full(shape, int(is_no_index))
        arrays.append(spec.laid_out(np.asarray(values).astype(dtype), spec.name))
    return arrays


def _known(signature: Signature) -> tuple[TensorSpec, ...]:
    inputs = signature.inputs
    if inputs is None or any(spec.dtype is None or spec.shape is None for spec in inputs):
        raise ConfigError("the package does not say what inputs the model takes")
    return inputs


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    return [_size(size, sizes) for size in spec.shape or ()]


def _size(size: int | Dim, sizes: Mapping[str, int]) -> int:
    return evaluate(size, defaultdict(lambda: 1, sizes))


def _dtype(spec: TensorSpec) -> Any:
    try:
        return numpy_dtype(spec.dtype or "")
    except ValueError as error:
        raise ConfigError(str(error)) from error
