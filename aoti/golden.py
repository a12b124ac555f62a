"""Golden values: inputs and outputs that the exporter kept in a package, to test a model with.

The file ``extra/aoti/golden/<model>.json`` in the package has a flat list of inputs and one of
outputs. Each is ``{"dtype": "float32", "shape": [2, 3], "data": "<base64>"}``, with the elements in
C order and little-endian.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aoti.errors import PackageError, SelfTestError
from aoti.package import layout
from aoti.protocol import ModelRunner
from aoti.signature.dtypes import DTYPES, numpy_dtype

if TYPE_CHECKING:
    from aoti.package.package import Package

# Relative to each element, and to the largest element of the output. Other dtypes must be equal.
TOLERANCES = {
    "float64": (1e-7, 1e-8),
    "complex128": (1e-7, 1e-8),
    "float32": (1e-4, 1e-5),
    "complex64": (1e-4, 1e-5),
    "float16": (1e-2, 1e-3),
    "bfloat16": (5e-2, 1e-2),
}


class GoldenRunner(ModelRunner, Protocol):
    """A model that can run its golden values: one that also takes the kind of its outputs."""

    path: str

    def run(self, inputs: Sequence[Any], *, outputs: str | None = None) -> list[Any]:
        """Run on a flat sequence of arrays."""


@dataclass(frozen=True)
class Comparison:
    """The difference between an output and its expected value.

    Attributes
    ----------
    name : str
        The output.
    dtype : str
        Its dtype, which determines the tolerances.
    max_error : float
        The largest difference between two elements.
    max_value : float
        The largest absolute value of the finite expected elements.
    rtol, atol : float
        The allowed difference is ``rtol * abs(element) + atol * max_value``.
    nan, inf : int
        The number of elements that are NaN or infinite in only one of the two arrays.
    reason : str or None
        What is wrong, in one line; None if the output is within the tolerances.
    """

    name: str
    dtype: str
    max_error: float
    max_value: float
    rtol: float
    atol: float
    nan: int
    inf: int
    reason: str | None

    @property
    def ok(self) -> bool:
        """Whether the output is within the tolerances."""
        return self.reason is None


def compare(
    name: str,
    dtype: str,
    got: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> Comparison:
    """Compare an output with its expected value.

    Parameters
    ----------
    name, dtype : str
        The output, and its dtype in the model.
    got, expected : numpy.ndarray
        Arrays of any shape, of float64, complex128 or an integer dtype: see `wide`.
    rtol, atol : float, optional
        Tolerances in place of those in `TOLERANCES`.

    Returns
    -------
    Comparison
        It is not within the tolerances if the shapes differ.
    """
    import numpy as np

    default = TOLERANCES.get(dtype, (0.25, 0.1) if dtype.startswith("float8") else (0.0, 0.0))
    rtol, atol = default[0] if rtol is None else rtol, default[1] if atol is None else atol
    if got.shape != expected.shape:
        said = f"its shape is {got.shape}, not {expected.shape}"
        return Comparison(name, dtype, math.inf, math.nan, rtol, atol, 0, 0, said)
    if got.dtype.kind in "biu":
        different = got != expected
        error = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        nan = inf = 0
        largest = float(np.abs(expected.astype(np.float64)).max(initial=0))
    else:
        with np.errstate(all="ignore"):
            alike = (got == expected) | (np.isnan(got) & np.isnan(expected))
            nan = int((np.isnan(got) != np.isnan(expected)).sum())
            inf = int(((np.isinf(got) | np.isinf(expected)) & ~alike).sum())
            finite = np.isfinite(expected)
            largest = float(np.abs(expected[finite]).max(initial=0))
            error = np.where(alike, 0, np.abs(got - expected))
            close = finite & (error <= rtol * np.abs(expected) + atol * largest)
            different = ~(alike | close)
            error = error[np.isfinite(error)]
    worst = float(error.max(initial=0))
    reason: str | None = None
    if different.any():
        place = [int(where[0]) for where in different.nonzero()]
        here = tuple(place)
        reason = (
            f"{int(different.sum())} of {different.size} elements differ, the first at {place}: "
            f"{got[here]}, expected {expected[here]}"
        )
    return Comparison(name, dtype, worst, largest, rtol, atol, nan, inf, reason)


@dataclass(frozen=True)
class Golden:
    """Inputs of a model and the expected outputs.

    Attributes
    ----------
    inputs, outputs : list of numpy.ndarray
        In flat order, with the dtypes of the model.
    """

    inputs: list[Any]
    outputs: list[Any]

    @classmethod
    def of(cls, package: Package, model_name: str) -> Golden:
        """The golden values of a model.

        Raises
        ------
        PackageError
            The package has no golden values, or they are damaged.
        SelfTestError
            They have a dtype that nothing installed here supports.
        """
        text = package.extra(layout.golden_values(model_name))
        if text is None:
            raise PackageError(
                f"{package.name} holds no golden values for model {model_name!r}; "
                "export it with golden=True (aoti export --golden)"
            )
        try:
            record = json.loads(text)
            return cls(
                [_array(item) for item in record["inputs"]],
                [_array(item) for item in record["outputs"]],
            )
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise PackageError(
                f"{package.name}: the golden values of model {model_name!r} are damaged "
                f"({type(error).__name__}: {error!s:.100}); get the package again"
            ) from error

    def test(
        self, model: GoldenRunner, *, rtol: float | None = None, atol: float | None = None
    ) -> list[Comparison]:
        """Run a model on the inputs and compare its outputs.

        Raises
        ------
        SelfTestError
            The model has another number of outputs.
        InputError
            The model does not take the inputs.
        ExecutionError
            The model failed.
        """
        inputs = [
            spec.laid_out(array) if spec.mutated else array
            for spec, array in zip(model.inputs or (), self.inputs, strict=True)
        ]
        outputs = model.run(inputs, outputs="numpy")
        names = [spec.name for spec in model.outputs or ()]
        if len(outputs) != len(self.outputs):
            raise SelfTestError(
                f"{model.path}: the model has {len(outputs)} outputs, but the package has golden "
                f"values for {len(self.outputs)}"
            )
        return [
            compare(
                names[n] if len(names) == len(outputs) else f"output.{n}",
                expected.dtype.name,
                wide(got),
                wide(expected),
                rtol=rtol,
                atol=atol,
            )
            for n, (got, expected) in enumerate(zip(outputs, self.outputs, strict=True))
        ]

    def require(self, model: GoldenRunner) -> None:
        """Refuse a model that does not compute its golden values here.

        Raises
        ------
        SelfTestError
            An output differs by more than the tolerances.
        InputError, ExecutionError
            As `test`.
        """
        for result in self.test(model):
            if not result.ok:
                raise SelfTestError(
                    f"{model.path}: output {result.name} differs from its golden value: "
                    f"{result.reason} (allowed: {result.rtol:g} of each element and "
                    f"{result.atol:g} of the largest, which is {result.max_value:g})"
                )


def to_json(inputs: Sequence[tuple[str, Any]], outputs: Sequence[tuple[str, Any]]) -> str:
    """Write the document that `Golden.of` reads.

    Parameters
    ----------
    inputs, outputs : sequence of (str, numpy.ndarray)
        The dtype and the elements of each. Elements of a dtype that numpy lacks are given as
        integers with the same bytes.
    """
    return json.dumps(
        {
            "inputs": [_record(dtype, array) for dtype, array in inputs],
            "outputs": [_record(dtype, array) for dtype, array in outputs],
        }
    )


def _record(dtype: str, array: Any) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": dtype, "shape": list(array.shape), "data": data}


def _array(item: Any) -> Any:
    import numpy as np

    name, shape = item["dtype"], item["shape"]
    if name not in DTYPES or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"not a dtype or not a shape: {name!r:.40}, {shape!r:.40}")
    try:
        dtype = numpy_dtype(name)
    except ValueError as error:
        raise SelfTestError(f"the golden values cannot be read: {error}") from None
    # A copy, because a model can write into its inputs.
    return np.frombuffer(base64.b64decode(item["data"]), dtype).reshape(shape).copy()


def wide(array: Any) -> Any:
    """The same array in float64, complex128 or its integer dtype, as `compare` takes it."""
    import numpy as np

    if array.dtype.kind in "biu":
        return array
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
