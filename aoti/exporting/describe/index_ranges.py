"""Inputs that index tables, and the values that are valid for every table.

An index out of range inside an OpenMP region of a kernel ends the process. So the valid range is
found at the export, by following each input through the graph to where it indexes, and calls are
checked against it. An operator that is not known to use integers as plain numbers counts as one
that indexes with them: the input is then reported as unchecked.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree

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
    *(aten.scatter_add.default, aten.scatter_reduce.two, aten.index_reduce.default),
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
# (table, index): the table is read as one row; a negative index counts from the end.
_FLAT = {aten.take.default, aten.put.default}
# Operators whose integer results are positions or counts, which are valid whatever the input is.
_POSITIONS = {
    *(aten.argmax, aten.argmin, aten.argsort, aten.nonzero, aten.nonzero_static),
    *(aten.bucketize, aten.searchsorted),
}
# The second result of these is a position in the first argument.
_WITH_POSITIONS = {
    *(aten.sort, aten.topk, aten.kthvalue, aten.median, aten.nanmedian, aten.mode),
    *(aten.max, aten.min, aten.cummax, aten.cummin),
    *(aten.max_pool2d_with_indices, aten.max_pool3d_with_indices),
    *(aten.adaptive_max_pool2d, aten.adaptive_max_pool3d),
}
# Arguments of ATen operators that are read as numbers, not as positions.
_NUMBERS = {
    *"self other tensors input x y x1 x2 tensor tensor1 tensor2 weight bias mat1 mat2 mat".split(),
    *"vec vec1 vec2 batch1 batch2 mask condition src source value values min max".split(),
    *"start end a exponent elements test_elements test_element boundaries".split(),
    *"sorted_sequence repeats query key attn_mask attn_bias prepend append real imag".split(),
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
        Inputs that also index in a way that does not give a range: after arithmetic, in part,
        under a mask, or in an operator that is not known here.
    """
    names = set(inputs)
    kept: dict[Node, str] = {}  # nodes with the values of an integer input
    derived: dict[Node, set[str]] = {}  # the inputs that the values of other nodes depend on
    bounded: dict[Node, int] = {}  # nodes with values between 0 and a number
    ranges: dict[str, tuple[Bound, Bound]] = {}
    unchecked: set[str] = set()

    def sources(nodes: Collection[Node]) -> set[str]:
        found = {kept[node] for node in nodes if node in kept}
        return found.union(*(derived.get(node, ()) for node in nodes))

    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in names and _is_integer(node):
                kept[node] = node.name
            elif node.name in names:
                derived[node] = {node.name}
        uses = list(_uses(node))
        for index, size, wraps in uses:
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
            elif not (index in bounded and isinstance(size, int) and bounded[index] <= size - 1):
                unchecked |= derived.get(index, set())
        unchecked |= sources(_unknown_uses(node, {index for index, _, _ in uses}))
        if node.op == "placeholder":
            continue
        first = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        if node.target in _KEEPING and first in kept and _is_integer(node):
            kept[node] = kept[first]
            continue
        if not _has_positions(node):
            derived[node] = sources(node.all_input_nodes)
        if _dtype(node) == torch.bool:
            bounded[node] = 1
        elif node.target is aten.clamp.default and len(node.args) == 3 and _are_indices(node):
            bounded[node] = node.args[2]
        elif node.target in _KEEPING and first in bounded:
            bounded[node] = bounded[first]
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
        dim = 0
        for index in indices:  # type: ignore[union-attr]
            if isinstance(index, Node) and _dtype(index) in (torch.bool, torch.uint8):
                dim += index.meta["val"].dim()  # a mask covers as many dimensions as it has
                continue
            if isinstance(index, Node):
                yield index, _size(table, dim), True
            dim += 1
    elif node.target == aten.take_along_dim.default and isinstance(node.args[-1], int):
        table, index, dim = node.args[:3]
        yield index, _size(table, dim), True  # type: ignore[misc]
    elif node.target == aten.one_hot.default and _has_classes(node):
        index, classes = node.args
        yield index, classes, False  # type: ignore[misc]
    elif node.target in _FLAT:
        table, index = node.args[:2]
        numel = table.meta["val"].numel()  # type: ignore[union-attr]
        yield index, numel if isinstance(numel, int) else str(numel), True  # type: ignore[misc]


def _has_classes(one_hot: Node) -> bool:
    """Whether the number of classes is given: otherwise it is found in the values."""
    return len(one_hot.args) == 2 and isinstance(one_hot.args[1], int) and one_hot.args[1] > 0


def _unknown_uses(node: Node, known: set[Node]) -> list[Node]:
    """The arguments that a node may index with, apart from those of `_uses`."""
    if node.op != "call_function" or node.target is operator.getitem:
        return []
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return node.all_input_nodes if any(map(_indexes, _subgraphs(node))) else []
    integers = [n for n in node.all_input_nodes if _is_integer(n) and n not in known]
    if not isinstance(node.target, OpOverload) or not integers:
        return []  # arithmetic of sizes
    if node.target.namespace not in ("aten", "prims"):
        return integers
    if torch.Tag.pointwise in node.target.tags or node.target in _KEEPING:
        return []
    if node.target == aten.one_hot.default:
        return integers
    numbers = [value for argument, value in _arguments(node) if argument in _NUMBERS]
    return [n for n in integers if n not in pytree.tree_leaves(numbers)]


def _arguments(node: Node) -> Iterator[tuple[str, Any]]:
    """The arguments of an operator, by the names of its schema."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    yield from zip(names, node.args, strict=False)
    yield from node.kwargs.items()


def _subgraphs(node: Node) -> Iterator[torch.fx.GraphModule]:
    """The functions that a higher-order operator calls, and those that they call."""
    root = node.graph.owning_module
    for argument in node.all_input_nodes:
        if argument.op == "get_attr" and root is not None:
            graph = getattr(root, str(argument.target), None)
            if isinstance(graph, torch.fx.GraphModule):
                yield from (m for m in graph.modules() if isinstance(m, torch.fx.GraphModule))


def _indexes(module: torch.fx.GraphModule) -> bool:
    """Whether a function may index with one of its values."""
    for node in module.graph.nodes:
        uses = [index for index, _, _ in _uses(node)]
        if uses or (
            not isinstance(node.target, torch._ops.HigherOrderOperator)
            and _unknown_uses(node, set(uses))
        ):
            return True
    return False


def _has_positions(node: Node) -> bool:
    """Whether the values of a node are positions or counts, not computed from values of inputs."""
    if node.target is operator.getitem:
        source, place = node.args
        packet = getattr(source.target, "overloadpacket", None)  # type: ignore[union-attr]
        return bool(place == 1) and packet in _WITH_POSITIONS
    return getattr(node.target, "overloadpacket", None) in _POSITIONS


def _size(table: Any, dim: Any) -> Bound:
    size = table.meta["val"].shape[dim]
    return size if isinstance(size, int) else str(size)


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_integer(node: Node) -> bool:
    dtype = _dtype(node)
    return not (dtype is None or dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


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
