"""Golden values: inputs and outputs that the exporter kept in a package, and their comparison.

They stand in the archive as ``extra/aoti/golden/<model>.json``: a list of inputs and a list of
outputs, both flat, each ``{"dtype": "float32", "shape": [2, 3], "data": "<base64>"}``, with the
elements in C order and little-endian.
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

# Relative to each element, and to the largest of the output. What is not listed must be equal.
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
    """How far an output is from what it should be.

    Attributes
    ----------
    name : str
        The output.
    dtype : str
        Its dtype, which decides about the tolerances.
    max_error : float
        The largest difference of two elements.
    max_value : float
        The largest finite element that was expected, without its sign.
    rtol, atol : float
        What may differ: ``rtol * abs(element) + atol * max_value``.
    nan, inf : int
        How many elements are that, where they should not be, or the other way round.
    reason : str or None
        What is wrong, in a line; None if it is within the tolerances.
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
        """Whether it is within the tolerances."""
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
    """Compare an output with what it should be.

    Parameters
    ----------
    name, dtype : str
        The output, and the dtype that the model has for it.
    got, expected : numpy.ndarray
        Of float64, complex128 or an integer dtype, whatever `dtype` is.
    rtol, atol : float, optional
        Other tolerances than those of `TOLERANCES`.
    """
    import numpy as np

    default = TOLERANCES.get(dtype, (0.25, 0.1) if dtype.startswith("float8") else (0.0, 0.0))
    rtol, atol = default[0] if rtol is None else rtol, default[1] if atol is None else atol
    if got.shape != expected.shape:
        said = f"its shape is {got.shape}, and should be {expected.shape}"
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
            f"{got[here]}, and should be {expected[here]}"
        )
    return Comparison(name, dtype, worst, largest, rtol, atol, nan, inf, reason)


@dataclass(frozen=True)
class Golden:
    """Inputs of a model and the outputs that it should give.

    Attributes
    ----------
    inputs, outputs : list of numpy.ndarray
        In flat order.
    """

    inputs: list[Any]
    outputs: list[Any]

    @classmethod
    def of(cls, package: Package, model_name: str) -> Golden:
        """The golden values of a model.

        Raises
        ------
        PackageError
            The package has none, or they are damaged.
        SelfTestError
            They are of a dtype that nothing installed here knows.
        """
        text = package.extra(layout.golden_values(model_name))
        if text is None:
            raise PackageError(
                f"{package.name} holds no golden values of model {model_name!r} to test it by; "
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
        """Run a model on the inputs and compare what comes out.

        Raises
        ------
        InputError
            The inputs are not what the model takes.
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
                f"{model.path}: {len(outputs)} outputs, and {len(self.outputs)} golden ones"
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
        """Refuse a model that does not give its golden values here.

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
                    f"{model.path}: output {result.name} is not what it was where the model was "
                    f"exported: {result.reason} (allowed: {result.rtol:g} of each, "
                    f"{result.atol:g} of the largest, which is {result.max_value:g})"
                )


def to_json(inputs: Sequence[tuple[str, Any]], outputs: Sequence[tuple[str, Any]]) -> str:
    """The document that `Golden.of` reads.

    Parameters
    ----------
    inputs, outputs : sequence of (str, numpy.ndarray)
        The dtype of each, and its elements; of a dtype that numpy lacks, their bytes as integers.
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
        raise ValueError(f"no dtype or no shape: {name!r:.40}, {shape!r:.40}")
    try:
        dtype = numpy_dtype(name)
    except ValueError as error:
        raise SelfTestError(f"the golden values cannot be read: {error}") from None
    # A copy, because the model may write into its inputs.
    return np.frombuffer(base64.b64decode(item["data"]), dtype).reshape(shape).copy()


def wide(array: Any) -> Any:
    """The same in float64, complex128 or its integer dtype: what `compare` takes."""
    import numpy as np

    if array.dtype.kind in "biu":
        return array
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
