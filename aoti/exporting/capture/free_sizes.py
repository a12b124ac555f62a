"""Tracing without needless conditions on dynamic sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses import fake_impls
from torch.fx.experimental import _config as symbolic_sizes

_known_of_all_sizes: Any = partial(symbolic_sizes.patch, backed_size_oblivious=True)  # type: ignore[attr-defined]
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


@contextlib.contextmanager
def any_sizes() -> Iterator[None]:
    """Let `einsum` and views fix no sizes.

    opt_einsum would choose an order for the sizes of the examples, so `einsum` multiplies its
    operands in their order. And torch looks for the strides of a view in a way that depends on
    whether one size divides another, unless it asks only for what is known of all sizes.
    """
    known = fake_impls.op_implementations_dict
    views = {view: _of_any_size(known[view]) for view in _VIEWS if view in known}
    with torch.backends.opt_einsum.flags(enabled=False), patch.dict(known, views):
        yield


def _of_any_size(find: Callable[..., Any]) -> Callable[..., Any]:
    def view(mode: Any, operator: Any, x: torch.Tensor, *shape: Any, **settings: Any) -> Any:
        if any(isinstance(size, torch.SymInt) for size in x.shape):
            # It may not find a view of a tensor whose dimensions are in another order.
            with contextlib.suppress(Exception), _known_of_all_sizes():
                return find(mode, operator, x, *shape, **settings)
        return find(mode, operator, x, *shape, **settings)

    return view
