"""Dynamic sizes by name: ``batch=1..64`` wherever torch accepts a ``Dim``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from aoti.errors import ConfigError, ExportError
from aoti.exporting.capture.containers import is_registered, parts_of

_FORM = re.compile(r"(?P<name>[A-Za-z_]\w*)(=(?P<min>\d+)\.\.(?P<max>\d*))?")


def parse_dim(text: str) -> Dim:
    """Parse a named size: ``batch``, ``batch=1..64`` or ``batch=1..`` (without an upper bound).

    Raises
    ------
    ConfigError
        The text has another form, or the lower bound is above the upper one.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(f"a size is written NAME=MIN..MAX, as in batch=1..64, not {text!r}")
    low, high = match["min"], match["max"]
    if low and high and int(low) > int(high):
        raise ConfigError(f"the range of {text!r} is empty")
    return Dim(match["name"], min=int(low) if low else None, max=int(high) if high else None)


def named_shapes(shapes: Any, dims: Mapping[str, Dim]) -> Any:
    """Dynamic shapes for torch, with names replaced by ``Dim`` objects.

    Parameters
    ----------
    shapes : object
        As for ``torch.export.export``, with strings in place of ``Dim``: ``batch=1..64`` the first
        time, then ``batch``.
    dims : mapping of str to Dim
        Sizes by name; they win over sizes of the same name in `shapes`.

    Raises
    ------
    ConfigError
        As for `parse_dim`; a name has two ranges; or a name of `dims` is not in `shapes`.
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
                    raise ConfigError(f"one size has two ranges: {first!r} and {value!r}")
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
        raise ConfigError(f"the dynamic shapes do not name a size {', '.join(sorted(unused))}")
    return result


def arguments_by_name(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by the names of the parameters, as dynamic shapes name them.

    The parameter ``*xs`` has a tuple, and ``**xs`` a dict. Empty if the arguments do not fit:
    tracing reports that.
    """
    try:
        return dict(signature(forward).bind(*args, **kwargs).arguments)
    except TypeError:
        return {}


def shapes_for_torch(value: Any, shapes: Any) -> Any:
    """Dynamic shapes as torch takes them, where the parts of registered containers are lists.

    Parameters
    ----------
    value : object
        The example arguments, or a part of them.
    shapes : object
        As for ``torch.export.export``. A registered container may also have a dict, with its parts
        by name, or the sizes of a tensor, which are then those of all of its tensors.

    Raises
    ------
    ConfigError
        They name a part that the container does not have.
    """
    if is_registered(value) and shapes is not None:
        parts = parts_of(value)
        names = list(parts) if isinstance(parts, dict) else list(range(len(parts)))
        items = list(parts.values()) if isinstance(parts, dict) else list(parts)
        if not isinstance(shapes, Mapping):
            return shapes_for_torch(items, shapes)
        if unknown := [key for key in shapes if key not in names]:
            if all(isinstance(key, int) for key in shapes):
                return _everywhere(items, shapes)
            raise ConfigError(
                f"the dynamic shapes name {unknown[0]!r}, and {type(value).__name__} has "
                f"{', '.join(map(str, names)) or 'no parts'}"
            )
        return [
            shapes_for_torch(item, shapes.get(name))
            for name, item in zip(names, items, strict=True)
        ]
    if isinstance(value, Mapping) and isinstance(shapes, Mapping):
        return {key: shapes_for_torch(value.get(key), item) for key, item in shapes.items()}
    if isinstance(value, list | tuple) and isinstance(shapes, list | tuple):
        same = len(value) == len(shapes)
        return type(shapes)(map(shapes_for_torch, value, shapes)) if same else shapes
    return shapes


def _everywhere(value: Any, sizes: Mapping[int, Any]) -> Any:
    """The same sizes for all tensors in a value that have them, as torch takes them."""
    if isinstance(value, torch.Tensor):
        return {dim: size for dim, size in sizes.items() if dim < value.dim()} or None
    if is_registered(value):
        parts = parts_of(value)
        value = list(parts.values()) if isinstance(parts, dict) else list(parts)
    if isinstance(value, Mapping):
        return {key: _everywhere(item, sizes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_everywhere(item, sizes) for item in value]
    return None


def shapes_by_tensor(arguments: Mapping[str, Any], shapes: Any) -> dict[int, Any]:
    """The dynamic shape of each example tensor, by the identity of the tensor.

    Parameters
    ----------
    arguments : mapping
        The example arguments by name, without repeated tensors: see `arguments_by_name`.
    shapes : object
        As `shapes_for_torch` returns them.
    """
    dims: dict[int, Any] = {}
    if isinstance(shapes, Mapping):
        _pair(arguments, shapes, dims)
    else:
        _pair(list(arguments.values()), shapes, dims)
    return dims


def _pair(value: Any, shapes: Any, dims: dict[int, Any]) -> None:
    if shapes is None:
        return
    if isinstance(value, torch.Tensor):
        dims[id(value)] = shapes
    elif is_registered(value):
        _pair(pytree.SUPPORTED_NODES[type(value)].flatten_fn(value)[0], shapes, dims)
    elif isinstance(value, Mapping) and isinstance(shapes, Mapping):
        for key in shapes.keys() & value.keys():
            _pair(value[key], shapes[key], dims)
    elif isinstance(value, list | tuple) and isinstance(shapes, list | tuple):
        for item, shape in zip(value, shapes, strict=False):
            _pair(item, shape, dims)


def check_examples(arguments: Mapping[str, Any], shapes: Any) -> None:
    """Refuse examples from which torch cannot learn that a size is dynamic.

    Parameters are those of `shapes_by_tensor`.

    Raises
    ------
    ExportError
        A tensor does not have the dimension, or its size there is 0 or 1, which torch treats as
        fixed; or tensors differ in a size with one name.
    """
    tensors = {id(leaf): leaf for leaf in pytree.tree_leaves(dict(arguments))}
    known: dict[str, int] = {}
    for key, dims in shapes_by_tensor(arguments, shapes).items():
        shape = tuple(tensors[key].shape)
        for dim, named in dims.items() if isinstance(dims, Mapping) else enumerate(dims):
            name = getattr(named, "__name__", None)
            if named is None or isinstance(named, int):
                continue
            if not -len(shape) <= dim < len(shape):
                raise ExportError(
                    f"size {name or dim!r} is dimension {dim} of an example of shape {shape}, "
                    "which has fewer\ncount dimensions from 0, and pass an example that has it"
                )
            if shape[dim] < 2:
                raise ExportError(
                    f"size {name or dim!r} is {shape[dim]} in an example of shape {shape}; "
                    "torch treats 0 and 1 as fixed\npass an example with at least 2 there: the "
                    "package accepts 0 and 1 anyway, if the range contains them"
                )
            if name is not None and known.setdefault(name, shape[dim]) != shape[dim]:
                raise ExportError(
                    f"size {name!r} is {known[name]} in one example and {shape[dim]} in another\n"
                    "pass examples that agree in this size, or give the two sizes different names"
                )
