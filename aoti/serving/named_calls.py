"""Calls of a model with arrays by their names, as protocols and tables have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aoti.errors import ConfigError, InputError
from aoti.model import AOTIModel
from aoti.signature.spec import ConstantSpec, TensorSpec


class NamedCalls:
    """How arrays by name become the arguments of a call, and its result arrays by name.

    Attributes
    ----------
    inputs, outputs : tuple of TensorSpec
        Those of the model, whose names are the names of the arrays.

    Raises
    ------
    ConfigError
        The package does not describe the inputs or the outputs.
    """

    def __init__(self, model: AOTIModel) -> None:
        signature = model.signature
        if signature.arguments is None or signature.results is None:
            raise ConfigError(
                f"{model.path} does not describe its inputs and outputs: export it with aoti"
            )
        self._arguments, self._results = signature.arguments, signature.results
        self._plan = signature.plan((model.call_spec[0], model.call_spec[1]))
        self.inputs = tuple(spec for spec in self._arguments if isinstance(spec, TensorSpec))
        self.outputs = tuple(spec for spec in self._results if isinstance(spec, TensorSpec))

    def arguments(
        self, given: Mapping[str, Any], whose: str
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of a call. Arrays that the model does not take are left out.

        Parameters
        ----------
        given : mapping of str to array
            The arrays.
        whose : str
            What has them, for the message: ``the batch``.

        Raises
        ------
        InputError
            An input is missing.
        """
        if missing := [spec.name for spec in self.inputs if spec.name not in given]:
            wanted = ", ".join(spec.name for spec in self.inputs)
            raise InputError(
                f"{whose} has no {missing[0]!r}: it has {', '.join(map(str, given)) or 'nothing'}, "
                f"and the model takes {wanted}"
            )
        return self._plan.arguments(
            [
                spec.value if isinstance(spec, ConstantSpec) else given[spec.name]
                for spec in self._arguments
            ]
        )

    def named(self, result: Any) -> dict[str, Any]:
        """The arrays of a result, in the order of `outputs`."""
        leaves = zip(self._results, self._plan.flatten_result(result), strict=True)
        return {spec.name: leaf for spec, leaf in leaves if isinstance(spec, TensorSpec)}
