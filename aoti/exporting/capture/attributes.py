"""Attributes of a module that its code assigns while it is traced.

A package does not keep them from call to call. The module gets back what it had: otherwise values
of the trace, which are not real tensors, would be left in it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from aoti.exporting.places import current_place

_MISSING = object()
_TORCH = f"{torch.__path__[0]}{os.sep}"
# Parameters, buffers, children and hooks: torch's tracer looks after them.
REGISTRIES = frozenset(vars(torch.nn.Module()))

_CONTAINERS = (list, tuple, dict, set, OrderedDict, defaultdict)


@contextlib.contextmanager
def attributes_kept(
    module: torch.nn.Module, changed: dict[str, str], *, located: bool
) -> Iterator[None]:
    """Give a module back the attributes that it had, and the lists and dicts in them.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    changed : dict of str to str
        Gets the line of the user's code, which may be empty, for each attribute that the block
        changed, by its name: ``encoder.cache``.
    located : bool
        Whether to watch assignments, to find their lines. This is possible if the code really
        runs: strict tracing reads it, and does not assign.
    """
    children = {id(child): (name, child) for name, child in module.named_modules()}
    before = {key: _attributes(child) for key, (_, child) in children.items()}
    containers = {
        _path(children[key][0], name): list(_containers(value))
        for key, attributes in before.items()
        for name, value in attributes.items()
    }
    assign = torch.nn.Module.__setattr__

    def assigned(self: torch.nn.Module, name: str, value: Any) -> None:
        assign(self, name, value)
        if sys._getframe(1).f_code.co_filename.startswith(_TORCH):
            return  # as nn.LSTM does with lists of its weights
        if id(self) in children and name not in REGISTRIES and name in vars(self):
            path = _path(children[id(self)][0], name)
            if _differs(before[id(self)].get(name, _MISSING), value):
                changed.setdefault(path, current_place() or "")
            else:
                changed.pop(path, None)

    if located:
        torch.nn.Module.__setattr__ = assigned  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.__setattr__ = assign  # type: ignore[method-assign]
        for key, (_, child) in children.items():
            for name in _attributes(child).keys() - before[key].keys():
                del vars(child)[name]
            vars(child).update(before[key])
        for path, found in containers.items():
            if sum(_restored(container, content) for container, content in found):
                changed.setdefault(path, "")


def _path(child: str, name: str) -> str:
    return f"{child}.{name}" if child else name


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in REGISTRIES}


def _containers(value: Any) -> Iterator[tuple[Any, Any]]:
    """The lists, dicts and sets in an attribute, each with a copy."""
    pending, seen = [value], set()
    while pending:
        value = pending.pop()
        if type(value) not in _CONTAINERS or id(value) in seen:
            continue
        seen.add(id(value))
        pending += value.values() if isinstance(value, dict) else value
        if type(value) is not tuple:
            yield value, value.copy()


def _restored(container: Any, content: Any) -> bool:
    """Put the content back, and say whether it was another one."""
    if isinstance(container, dict):
        same = list(map(id, container)) == list(map(id, content))
        same = same and all(container[key] is content[key] for key in content)
    else:
        same = sorted(map(id, container)) == sorted(map(id, content))
    if not same:
        container.clear()
        (container.extend if isinstance(container, list) else container.update)(content)
    return not same


def _differs(old: Any, new: Any) -> bool:
    if old is new:
        return False
    # A symbolic size is of another type; to compare it would make it a condition of the trace.
    plain = bool | int | float | str | None
    return not (type(old) is type(new) and isinstance(old, plain) and old == new)
