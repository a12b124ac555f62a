"""Sizes that may change, by name: ``batch=1..64`` wherever torch takes a ``Dim``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from aoti.errors import ConfigError, ExportError

_FORM = re.compile(r"(?P<name>[A-Za-z_]\w*)(=(?P<min>\d+)\.\.(?P<max>\d*))?")


def parse_dim(text: str) -> Dim:
    """A named size out of ``batch``, ``batch=1..64`` or ``batch=1..`` (no bound above).

    Raises
    ------
    ConfigError
        It is written otherwise, or the bounds are the wrong way round.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(f"a size is written NAME=MIN..MAX, as batch=1..64, and not {text!r}")
    low, high = match["min"], match["max"]
    if low and high and int(low) > int(high):
        raise ConfigError(f"the range of {text!r} is empty")
    return Dim(match["name"], min=int(low) if low else None, max=int(high) if high else None)


def named_shapes(shapes: Any, dims: Mapping[str, Dim]) -> Any:
    """Dynamic shapes as torch takes them, with names replaced by the sizes that they stand for.

    Parameters
    ----------
    shapes : object
        As for ``torch.export.export``, with texts where that takes a ``Dim``: ``batch=1..64`` the
        first time, ``batch`` from then on.
    dims : mapping of str to Dim
        Sizes by name, which go before those of that name in `shapes`.

    Raises
    ------
    ConfigError
        As `parse_dim`; one name has two ranges; or a name of `dims` is not in `shapes`.
    """
    known = dict(dims)
    used: set[str] = set()
    ranged: dict[str, str] = {}

    def collect(value: Any) -> None:
        if isinstance(value, str):
            dim = parse_dim(value)
            if "=" in value and dim.__name__ not in dims:
                first = ranged.setdefault(dim.__name__, value)
                if first != value:
                    raise ConfigError(f"one size with two ranges: {first!r} and {value!r}")
                known.setdefault(dim.__name__, dim)
        elif isinstance(value, Mapping):
            for item in value.values():
                collect(item)
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)

    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            dim = parse_dim(value)
            used.add(dim.__name__)
            return known.setdefault(dim.__name__, dim)
        if isinstance(value, Mapping):
            return {key: replaced(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(replaced(item) for item in value)
        name = getattr(value, "__name__", "")
        if name in dims:
            used.add(name)
            return dims[name]
        return value

    collect(shapes)
    result = replaced(shapes)
    if unused := dims.keys() - used:
        raise ConfigError(f"no size is named {', '.join(sorted(unused))} in the dynamic shapes")
    return result


def shapes_by_tensor(
    examples: tuple[tuple[Any, ...], Mapping[str, Any]], shapes: Any, parameters: Sequence[str]
) -> dict[int, Any]:
    """What dynamic shapes say of each example tensor, by its identity.

    Parameters
    ----------
    examples : tuple
        The arguments, ``(args, kwargs)``, no tensor twice.
    shapes : object
        As ``torch.export.export`` takes them.
    parameters : sequence of str
        The names of the positional arguments.
    """
    args, kwargs = examples
    dims: dict[int, Any] = {}
    if isinstance(shapes, Mapping):
        _pair({**dict(zip(parameters, args, strict=False)), **kwargs}, shapes, dims)
    else:
        _pair([*args, *kwargs.values()], shapes, dims)
    return dims


def _pair(value: Any, shapes: Any, dims: dict[int, Any]) -> None:
    if shapes is None:
        return
    if isinstance(value, torch.Tensor):
        dims[id(value)] = shapes
    elif isinstance(value, Mapping) and isinstance(shapes, Mapping):
        for key in shapes.keys() & value.keys():
            _pair(value[key], shapes[key], dims)
    elif isinstance(value, list | tuple) and isinstance(shapes, list | tuple):
        for item, shape in zip(value, shapes, strict=False):
            _pair(item, shape, dims)


def check_examples(
    examples: tuple[tuple[Any, ...], Mapping[str, Any]], shapes: Any, parameters: Sequence[str]
) -> None:
    """Refuse examples from which torch cannot learn that a size may change.

    Parameters are those of `shapes_by_tensor`.

    Raises
    ------
    ExportError
        A tensor has no such dimension, or its size there is 0 or 1, which torch takes for fixed;
        or tensors differ in a size of one name.
    """
    tensors = {id(leaf): leaf for leaf in pytree.tree_leaves(examples)}
    known: dict[str, int] = {}
    for key, dims in shapes_by_tensor(examples, shapes, parameters).items():
        shape = tuple(tensors[key].shape)
        for dim, named in dims.items() if isinstance(dims, Mapping) else enumerate(dims):
            name = getattr(named, "__name__", None)
            if named is None or isinstance(named, int):
                continue
            if not -len(shape) <= dim < len(shape):
                raise ExportError(
                    f"size {name or dim!r} is dimension {dim} of an example of shape {shape}\n"
                    "count dimensions from 0, and pass an example with that many"
                )
            if shape[dim] < 2:
                raise ExportError(
                    f"size {name or dim!r} is {shape[dim]} in an example of shape {shape}, and "
                    "torch takes 0 and 1 for fixed\npass an example with at least 2 there: the "
                    "package takes 0 and 1 all the same, where the range has them"
                )
            if name is not None and known.setdefault(name, shape[dim]) != shape[dim]:
                raise ExportError(
                    f"size {name!r} is {known[name]} in one example and {shape[dim]} in another\n"
                    "pass examples that agree in it, or give the two sizes different names"
                )
