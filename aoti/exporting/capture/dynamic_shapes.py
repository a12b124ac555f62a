"""Dynamic sizes by name: ``batch=1..64`` wherever torch accepts a ``Dim``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from aoti.errors import ConfigError, ExportError
from aoti.exporting.capture.containers import is_registered, parts_of
from aoti.signature.size_expr import affine

_FORM = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)\s*=)?\s*(?P<value>[^=]*)")
_RANGE = re.compile(r"(\d+)\.\.(\d*)")


@dataclass(frozen=True)
class NamedSize:
    """A size as text names it.

    Attributes
    ----------
    name : str
        Its name; ``4*n`` for a size that is only computed from another one.
    low, high : int or None
        The least and the largest value. None: no bound.
    form : tuple of (str, int, int), or None
        The size as ``scale * other + offset``: the name of the other size, scale, offset.
    """

    name: str
    low: int | None = None
    high: int | None = None
    form: tuple[str, int, int] | None = None

    @property
    def has_value(self) -> bool:
        """Whether it has a range or a form."""
        return self != NamedSize(self.name)


def parse_size(text: str) -> NamedSize:
    """Parse a size: ``batch``, ``batch=1..64``, ``batch=1..`` (no upper bound), ``height=4*n + 1``.

    The name of a size that is computed from another one may be left out: ``4*n``.

    Raises
    ------
    ConfigError
        The text has another form, or the lower bound is above the upper one.
    """
    match = _FORM.fullmatch(text.strip())
    name, value = (match["name"], match["value"]) if match else (None, "")
    if name and (bounds := _RANGE.fullmatch(value)):
        low, high = int(bounds[1]), int(bounds[2]) if bounds[2] else None
        if high is not None and low > high:
            raise ConfigError(f"the range of {text!r} is empty")
        return NamedSize(name, low, high)
    form = affine(value)
    if form is None or form[1] < 1:
        raise ConfigError(
            f"a size is written NAME=MIN..MAX, as in batch=1..64, or NAME=NUMBER*OTHER+NUMBER, as "
            f"in height=4*n, not {text!r}"
        )
    if form[1:] == (1, 0) and name is None:
        return NamedSize(form[0])
    return NamedSize(name or value, form=form)


def named_shapes(shapes: Any, dims: Mapping[str, NamedSize]) -> Any:
    """Dynamic shapes for torch, with names replaced by ``Dim`` objects.

    Parameters
    ----------
    shapes : object
        As for ``torch.export.export``, with strings in place of ``Dim``: ``batch=1..64`` or
        ``height=4*n`` the first time, then ``batch`` or ``height``.
    dims : mapping of str to NamedSize
        Sizes by name; they win over sizes of the same name in `shapes`.

    Raises
    ------
    ConfigError
        As for `parse_size`; a name has two values; sizes are computed from each other; or a name
        of `dims` is not in `shapes`.
    """
    sizes = _Sizes(dims)
    sizes.collect(shapes)
    result = sizes.replaced(shapes)
    if unused := dims.keys() - sizes.dims.keys():
        raise ConfigError(f"the dynamic shapes do not name a size {', '.join(sorted(unused))}")
    return result


class _Sizes:
    """The sizes that are named in dynamic shapes, and torch's ``Dim`` for each of them."""

    def __init__(self, given: Mapping[str, NamedSize]) -> None:
        self._given = given
        self._named: dict[str, NamedSize] = {}
        self._theirs: dict[str, Dim] = {}  # passed in as torch's own objects
        self._open: list[str] = []  # the sizes that are being computed
        self.dims: dict[str, Dim] = {}

    def collect(self, value: Any) -> None:
        """Find what the shapes say about each name, wherever they say it."""
        if isinstance(value, str):
            size = parse_size(value)
            if size.has_value and self._named.setdefault(size.name, size) != size:
                raise ConfigError(f"size {size.name!r} has two values, one of them {value!r}")
        elif isinstance(value, Mapping):
            for item in value.values():
                self.collect(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self.collect(item)
        elif name := getattr(value, "__name__", ""):
            self._theirs[name] = value

    def replaced(self, value: Any) -> Any:
        """The shapes with torch's objects."""
        if isinstance(value, str):
            return self._dim(parse_size(value).name)
        if isinstance(value, Mapping):
            return {key: self.replaced(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.replaced(item) for item in value)
        if getattr(value, "__name__", "") in self._given:
            return self._dim(value.__name__)
        return value

    def _dim(self, name: str) -> Dim:
        if name in self.dims:
            return self.dims[name]
        if name in self._open:
            raise ConfigError(f"the sizes {', '.join(self._open)} are computed from each other")
        size = self._given.get(name) or self._named.get(name) or NamedSize(name)
        if size.form is not None:
            other, scale, offset = size.form
            self._open.append(name)
            dim = self._dim(other)
            self._open.pop()
            dim = dim if scale == 1 else scale * dim
            dim = dim if offset == 0 else dim + offset if offset > 0 else dim - -offset
        elif size.has_value or name not in self._theirs:
            dim = Dim(name, min=size.low, max=size.high)
        else:
            dim = self._theirs[name]
        self.dims[name] = dim
        return dim


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
        for key in value:
            _pair(value[key], shapes.get(key), dims)
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
            if name is None:
                continue
            root: str = getattr(named, "root", named).__name__  # type: ignore[union-attr]
            size = _root_size(named, shape[dim])
            if size is None:
                raise ExportError(
                    f"size {name!r} is {shape[dim]} in an example of shape {shape}, and no whole "
                    f"number {root} gives that\npass an example whose size has the form {name}"
                )
            if known.setdefault(root, size) != size:
                raise ExportError(
                    f"size {root!r} is {known[root]} in one example and {size} in another\n"
                    "pass examples that agree in this size, or give the two sizes different names"
                )


def _root_size(dim: Any, size: int) -> int | None:
    """The value of the size that another one is computed from: 3 for 12, which is ``4*n``."""
    if not hasattr(dim, "root"):
        return size
    offset = int(dim.fn(0))
    value, rest = divmod(size - offset, int(dim.fn(1)) - offset)
    return value if rest == 0 and value >= 0 else None
