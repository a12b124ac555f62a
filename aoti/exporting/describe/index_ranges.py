"""Inputs that index tables, and the values that are valid for every table.

An index out of range inside an OpenMP region of a kernel ends the process. So the valid range is
found at the export, by following each integer input through the graph to where it indexes, and
calls are checked against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.fx import Node

from aoti.signature.size_expr import affine

# A bound is a number, or a linear expression over symbols of sizes, as text.
Bound = int | str

aten = torch.ops.aten

# Operators that keep the values of all elements and drop none.
_KEEPING = {
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default),
    *(aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims),
    *(aten.permute.default, aten.transpose.int, aten.t.default, aten.flatten.using_ints),
    *(aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default),
    *(aten._to_copy.default, aten.to.dtype, aten.repeat.default, aten.flip.default),
    aten.lift_fresh_copy.default,
}
# (table, dim, index): negative indices are errors in all of them.
_ALONG_DIM = {
    *(aten.gather.default, aten.index_select.default, aten.index_add.default),
    *(aten.index_copy.default, aten.index_fill.int_Scalar, aten.index_fill.int_Tensor),
    *(aten.scatter.src, aten.scatter.value, aten.scatter.reduce, aten.scatter.value_reduce),
    *(aten.scatter_add.default, aten.scatter_reduce.two),
}
# (table, indices): a negative index counts from the end.
_BY_LISTS = {
    *(aten.index.Tensor, aten._unsafe_index.Tensor),
    *(aten.index_put.default, aten._unsafe_index_put.default),
}
_EMBEDDINGS = {
    *(aten.embedding.default, aten.embedding_bag.default, aten.embedding_bag.padding_idx),
    *(aten._embedding_bag.default, aten._embedding_bag_forward_only.default),
}


def value_ranges(
    graph: torch.fx.Graph, inputs: Iterable[str]
) -> tuple[dict[str, tuple[Bound, Bound]], tuple[str, ...]]:
    """Find the values that are valid for inputs that index tables.

    Parameters
    ----------
    graph : torch.fx.Graph
        The functional ATen graph of the model.
    inputs : iterable of str
        The names of the placeholders that are inputs of a call.

    Returns
    -------
    ranges : dict of str to (int or str, int or str)
        Per input that indexes tables, the least and the largest value that is valid for all.
    unchecked : tuple of str
        Inputs that also index in a way that does not give a range: after arithmetic, in part, or
        under a mask.
    """
    names = set(inputs)
    kept: dict[Node, str] = {}  # nodes with the values of an input
    derived: dict[Node, set[str]] = {}  # nodes computed from inputs in other ways
    clamped: dict[Node, int] = {}  # nodes with values between 0 and a number
    ranges: dict[str, tuple[Bound, Bound]] = {}
    unchecked: set[str] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in names and _is_integer(node):
                kept[node] = node.name
            continue
        for index, size, wraps in _uses(node):
            if (name := kept.get(index)) is not None:
                low: Bound = 0
                if wraps:
                    low = -size if isinstance(size, int) else f"-1*({size})"
                high: Bound = size - 1 if isinstance(size, int) else f"({size}) - 1"
                together = _intersection(ranges.get(name), (low, high))
                if together is None:
                    unchecked.add(name)
                else:
                    ranges[name] = together
            elif not (index in clamped and isinstance(size, int) and clamped[index] <= size - 1):
                unchecked |= derived.get(index, set())
        if not _is_integer(node):
            continue
        if node.target in _KEEPING and node.args[0] in kept:
            kept[node] = kept[node.args[0]]
        else:
            if node.target is aten.clamp.default and len(node.args) == 3 and _are_indices(node):
                clamped[node] = node.args[2]
            elif node.target in _KEEPING and node.args[0] in clamped:
                clamped[node] = clamped[node.args[0]]
            sources = {kept[n] for n in node.all_input_nodes if n in kept}
            sources.update(*(derived.get(n, ()) for n in node.all_input_nodes))
            derived[node] = sources
    return ranges, tuple(sorted(unchecked))


def _uses(node: Node) -> Iterator[tuple[Node, Bound, bool]]:
    """The indexings of a node: the index, the size of its dimension, whether -1 is valid."""
    if node.target in _EMBEDDINGS:
        table, index = node.args[:2]
        yield index, _size(table, 0), False  # type: ignore[misc]
    elif node.target in _ALONG_DIM:
        table, dim, index = node.args[:3]
        if table.meta["val"].dim():  # type: ignore[union-attr]
            yield index, _size(table, dim), False  # type: ignore[misc]
    elif node.target in _BY_LISTS:
        table, indices = node.args[:2]
        for dim, index in enumerate(indices):  # type: ignore[arg-type]
            # A mask covers as many dimensions as it has, which shifts the ones that follow.
            if isinstance(index, Node) and not _is_integer(index):
                return
            if isinstance(index, Node):
                yield index, _size(table, dim), True
    elif node.target == aten.take_along_dim.default and isinstance(node.args[-1], int):
        table, index, dim = node.args[:3]
        yield index, _size(table, dim), True  # type: ignore[misc]
    elif node.target == aten.take.default:
        table, index = node.args[:2]
        numel = table.meta["val"].numel()  # type: ignore[union-attr]
        yield index, numel if isinstance(numel, int) else str(numel), True  # type: ignore[misc]


def _size(table: Any, dim: Any) -> Bound:
    size = table.meta["val"].shape[dim]
    return size if isinstance(size, int) else str(size)


def _is_integer(node: Node) -> bool:
    value = node.meta.get("val")
    return (
        isinstance(value, torch.Tensor)
        and not value.dtype.is_floating_point
        and not value.dtype.is_complex
        and value.dtype != torch.bool
    )


def _are_indices(clamp: Node) -> bool:
    low, high = clamp.args[1:]
    return isinstance(low, int) and isinstance(high, int) and low >= 0


def _intersection(
    known: tuple[Bound, Bound] | None, more: tuple[Bound, Bound]
) -> tuple[Bound, Bound] | None:
    """The values in both ranges; None if they cannot be compared."""
    if known is None:
        linear = all(isinstance(bound, int) or affine(bound) for bound in more)
        return more if linear else None
    low, high = zip(known, more, strict=True)
    if all(isinstance(bound, int) for bound in (*low, *high)):
        return max(low), min(high)
    return known if known == more else None
