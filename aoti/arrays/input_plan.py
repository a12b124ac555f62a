"""What a call would do with each input: the answer of `AOTIModel.plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aoti.arrays.libraries import as_array, place_of
from aoti.errors import InputError
from aoti.signature.spec import TensorSpec


@dataclass(frozen=True, slots=True)
class InputPlan:
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
    value: object, view: object, outcome: object, spec: TensorSpec, path: str, device: str = "cpu"
) -> InputPlan:
    """The plan for one input, by what the core made of it.

    Parameters
    ----------
    value : object
        What was given.
    view : object
        The core's view of it: the value itself, or an `aoti.Tensor` that was made of it.
    outcome : object
        What would be passed to the model, or the InputError that refuses it.
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
    if outcome is view:
        return InputPlan(path, "shared")
    if isinstance(value, np.generic):
        return InputPlan(path, "copied", "a scalar has no memory to share")
    array: Any = as_array(view, spec, path) if place_of(view) in (None, "cpu") else view
    reason = spec.obstacle(array)
    return InputPlan(path, "copied" if reason else "shared", reason or "")


def _pending(value: Any) -> bool:
    """Whether torch left a conjugation or negation to be computed, which DLPack does not tell."""
    if type(value).__module__.partition(".")[0] != "torch" or not hasattr(value, "is_conj"):
        return False
    return bool(value.is_conj() or value.is_neg())
