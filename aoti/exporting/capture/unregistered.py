"""Containers that nobody registered with torch, such as caches: known to torch during an export.

Their parts are their attributes, or the items of a mapping, as far as these hold tensors or
numbers. What else they hold belongs to the structure: it is compiled in.
"""

from __future__ import annotations

import contextlib
import enum
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.export.dynamic_shapes import _IntWrapper  # what torch puts in place of an int
from torch.utils import _pytree as pytree

Register = Callable[[Any], None]

_MAX_DEPTH = 20  # of containers in containers: what is deeper is not made to hold tensors
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class statement made it
_OTHERS = (torch.nn.Module, torch.ScriptObject, type, enum.Enum)
_PARTS = (torch.Tensor, int, float, torch.SymInt, torch.SymFloat, _IntWrapper)


@contextlib.contextmanager
def registering() -> Iterator[Register]:
    """Give a function that makes torch flatten all containers in a value, while this lasts.

    The function does not change the registration of a type that the program registered.
    """
    types: list[type] = []
    try:
        yield partial(_register, types)
    finally:
        for kind in types:
            pytree._deregister_pytree_node(kind)


@dataclass(frozen=True)
class _Shell:
    """What is left of a container without its parts: their names, and the other attributes."""

    names: tuple[Any, ...]
    others: dict[str, Any]


def _register(registered: list[type], value: Any) -> None:
    walk = _Walk()
    try:
        walk.holds_tensors(value, 0)
    except _NotATree:
        return  # torch says what it does not know
    for kind in walk.types:
        pytree._private_register_pytree_node(
            kind,
            _flatten,
            partial(_unflatten, kind),
            serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )
        registered.append(kind)


class _NotATree(Exception):
    """An object that contains itself, or too many others in each other."""


class _Walk:
    """Finds the types to register for a value."""

    def __init__(self) -> None:
        self.types: dict[Any, None] = {}
        self._known: dict[int, bool | None] = {}  # None for what is being looked at
        self._alive: list[Any] = []  # so that no id is used again

    def holds_tensors(self, value: Any, depth: int) -> bool:
        """Whether a value holds tensors that torch would find if the types were registered."""
        kind: Any = type(value)
        if isinstance(value, _PARTS):
            return isinstance(value, torch.Tensor)
        if pytree.tree_is_leaf(value) and (
            not kind.__flags__ & HEAP_TYPE or isinstance(value, _OTHERS)
        ):
            return False
        if id(value) in self._known:
            known = self._known[id(value)]
            if known is None:
                raise _NotATree
            return known
        if depth > _MAX_DEPTH:
            raise _NotATree
        self._known[id(value)] = None
        self._alive.append(value)
        if pytree.tree_is_leaf(value):
            items, others = _content(value)
            parts = [*items.values(), *others.values()]
        else:
            parts = pytree.SUPPORTED_NODES[pytree._get_node_type(value)].flatten_fn(value)[0]
        found = [self.holds_tensors(part, depth + 1) for part in parts]  # each adds its types
        holds = any(found)
        if holds and pytree.tree_is_leaf(value):
            self.types[kind] = None
        self._known[id(value)] = holds
        return holds


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object by name, those in slots too."""
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__weakref__", "__dict__") and hasattr(value, name):
                found.setdefault(name, getattr(value, name))
    return found


def _content(value: Any) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The items of a mapping or a tuple, and the attributes."""
    found = attributes(value)
    if isinstance(value, dict):
        return dict(dict.items(value)), found
    if isinstance(value, UserDict):
        return dict(found.pop("data")), found
    if isinstance(value, tuple):
        return dict(enumerate(tuple.__iter__(value))), found
    return {}, found


def _is_part(value: Any) -> bool:
    return any(
        isinstance(leaf, _PARTS) and not isinstance(leaf, bool)
        for leaf in pytree.tree_leaves(value)
    )


def _split(value: Any) -> tuple[dict[Any, Any], _Shell]:
    items, others = _content(value)
    parts = items or {name: item for name, item in others.items() if _is_part(item)}
    rest = others if items else {n: item for n, item in others.items() if n not in parts}
    return parts, _Shell(tuple(parts), rest)


def _flatten(value: Any) -> tuple[list[Any], _Shell]:
    parts, shell = _split(value)
    return list(parts.values()), shell


def _flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], _Shell]:
    parts, shell = _split(value)
    names = getattr(type(value), "_fields", shell.names)  # of a class that extends a namedtuple
    return [(pytree.MappingKey(k), v) for k, v in zip(names, parts.values(), strict=True)], shell


def _unflatten(kind: Any, values: Any, shell: _Shell) -> Any:
    parts = dict(zip(shell.names, values, strict=True))
    # Lists and dicts are copied, because the module may change them.
    rest = {name: pytree.tree_map(lambda it: it, v) for name, v in shell.others.items()}
    if issubclass(kind, tuple):
        made = tuple.__new__(kind, parts.values())
    elif issubclass(kind, dict):
        made = dict.__new__(kind)
        dict.update(made, parts)
    else:
        made = object.__new__(kind)
        rest |= {"data": parts} if issubclass(kind, UserDict) else parts
    for name, item in rest.items():
        object.__setattr__(made, name, item)
    return made
