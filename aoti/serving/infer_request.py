"""Requests of the Open Inference Protocol (version 2) in JSON. Needs pydantic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from aoti.errors import InputError
from aoti.serving.named_calls import NamedCalls
from aoti.serving.tensors import decoded, described, numbers
from aoti.signature.spec import TensorSpec


class Tensor(BaseModel):
    """An input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Asked(BaseModel):
    """An output that a request asks for."""

    name: str


class InferRequest(BaseModel):
    """A request of the protocol, in JSON."""

    id: str | None = None
    inputs: list[Tensor]
    outputs: list[Asked] | None = None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Read the body of a request.

        Raises
        ------
        InputError
            It is not a request.
        """
        try:
            request: Self = cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise InputError(f"the request cannot be read: {where}: {first['msg']}") from error
        return request

    def arrays(self, calls: NamedCalls) -> dict[str, Any]:
        """The inputs by name.

        Raises
        ------
        InputError, InputTypeError
            The parts of an input contradict each other, or the model does not have it.
        """
        found: dict[str, Any] = {}
        for tensor in self.inputs:
            if tensor.name in found:
                raise InputError(f"the request has the input {tensor.name!r:.200} twice")
            _check_name(tensor.name, "input", calls.inputs)
            found[tensor.name] = decoded(
                tensor.name, tensor.datatype, tensor.shape, tensor.data, None
            )
        return found

    def answers(self, calls: NamedCalls, result: Any) -> list[dict[str, Any]]:
        """The outputs that the request asks for, or all, for JSON.

        Raises
        ------
        InputError
            The model does not have one of them.
        """
        specs = {spec["name"]: spec for spec in described(calls.outputs)}
        arrays = calls.named(result)
        for asked in self.outputs or ():
            _check_name(asked.name, "output", calls.outputs)
        return [
            {**specs[name], "shape": arrays[name].shape, "data": numbers(arrays[name])}
            for name in ([asked.name for asked in self.outputs] if self.outputs else specs)
        ]


def _check_name(name: str, kind: str, specs: Sequence[TensorSpec]) -> None:
    names = [spec.name for spec in specs]
    if name not in names:
        raise InputError(f"the model has no {kind} {name!r:.200}; it has {', '.join(names)}")
