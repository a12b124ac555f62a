"""What a call would do with each input: the answer of `AOTIModel.plan`."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from aoti.arrays.convert import as_array
from aoti.engine._core._tensor import Tensor
from aoti.errors import InputError
from aoti.signature.spec import TensorSpec


class InputPlan(NamedTuple):
    """What a call would do with one input.

    Attributes
    ----------
    path : str
        Its place in the call: ``args[0] (x)``.
    action : {'shared', 'copied', 'refused'}
        Whether the model reads the caller's memory, a copy of it, or the call is an error.
    reason : str
        Why it is copied or refused; empty where it is shared.
    """

    path: str
    action: Literal["shared", "copied", "refused"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.action}" + (f", {self.reason}" if self.reason else "")


def describe(
    value: object,
    outcome: Any,
    mismatch: tuple[str, int, Any, Any] | None,
    spec: TensorSpec,
    path: str,
    device: str = "cpu",
) -> InputPlan:
    """The plan for one input, by what the core made of it.

    Parameters
    ----------
    value : object
        What was given.
    outcome : object
        What would be passed to the model, or the InputError that refuses it.
    mismatch : tuple or None
        Why something else would be passed: see `aoti.arrays.validation`.
    spec : TensorSpec
        What is wanted.
    path : str
        Its place in the call.
    device : str
        Where the model runs.
    """
    import numpy as np

    if isinstance(outcome, InputError):
        return InputPlan(path, "refused", str(outcome))
    if _pending(value):
        return InputPlan(path, "copied", "a conjugation or negation of it is still to be computed")
    if device != "cpu" and spec.device != "cpu" and isinstance(outcome, np.ndarray):
        return InputPlan(path, "copied", f"it lies on the host, and is taken to {device}")
    if isinstance(value, np.generic):
        return InputPlan(path, "copied", "a scalar has no memory to share")
    match mismatch:
        case ("alignment", _, expected, _):
            return InputPlan(path, "copied", f"it is not aligned to {expected} bytes")
        case ("byte order", _, _, _):
            return InputPlan(path, "copied", "its bytes are in the other order")
        case ("strides", _, _, _):
            itemsize = outcome.nbytes // max(math.prod(outcome.shape), 1)
            wanted = tuple(step * itemsize for step in spec.steps(outcome.shape))
            return InputPlan(
                path,
                "copied",
                f"its strides are {_strides(value, itemsize)} bytes, and the model reads {wanted}",
            )
    return InputPlan(path, "shared")


def _strides(value: Any, itemsize: int) -> tuple[int, ...]:
    """The strides of an array, in bytes; torch counts elements."""
    if isinstance(value, Tensor) or hasattr(type(value), "stride"):
        steps = value.strides if isinstance(value, Tensor) else value.stride()
        return tuple(step * itemsize for step in steps)
    strides: tuple[int, ...] = as_array(value, TensorSpec("", None, None), "").strides
    return strides


def _pending(value: Any) -> bool:
    """Whether torch left a conjugation or negation to be computed; DLPack does not describe it."""
    if type(value).__module__.partition(".")[0] != "torch" or not hasattr(value, "is_conj"):
        return False
    return bool(value.is_conj() or value.is_neg())
