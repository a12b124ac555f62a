"""Converting between numpy arrays and torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

_INTEGERS = {1: np.uint8, 2: np.int16, 4: np.int32}


def tensor(array: Any) -> torch.Tensor:
    """A tensor that shares the memory of an array with a dtype of numpy or ml_dtypes."""
    try:
        return torch.from_numpy(array)
    except TypeError:  # of ml_dtypes
        integers = array.view(_INTEGERS[array.dtype.itemsize])
    return torch.from_numpy(integers).view(getattr(torch, array.dtype.name))


def tensors(tree: Any) -> Any:
    """The same containers, with tensors in place of arrays."""
    return pytree.tree_map_only(np.ndarray, tensor, tree)


def arrays(result: Any) -> list[Any]:
    """The tensors of a result in flat order, as arrays; as float32 if numpy lacks the dtype."""
    found = []
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, torch.Tensor):
            known = leaf.detach().cpu().resolve_conj().resolve_neg()
            try:
                found.append(known.numpy().copy())
            except TypeError:
                found.append(known.float().numpy())
    return found
