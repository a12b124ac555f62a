"""Inputs that index tables, and the values that are valid for every table.

An index out of range inside an OpenMP region of a kernel ends the process. So the valid range is
found at the export, by following each input through the graph to where it indexes, and calls are
checked against it. An operator that is not known to use integers as plain numbers counts as one
that indexes with them: the input is then reported as unchecked.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree

from aoti.exporting.passes import recurrence  # noqa: F401 (registers its operator)
from aoti.signature.size_expr import affine, polynomial

# A bound is a number, or a linear expression over symbols of sizes, as text.
Bound = int | str

aten = torch.ops.aten

# Operators that keep all elements where they are.
_IN_PLACE = {
    *(aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default),
    *(aten._to_copy.default, aten.to.dtype, aten.lift_fresh_copy.default),
}
# Operators that keep the values of all elements and drop none.
_KEEPING = {
    *_IN_PLACE,
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default),
    *(aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims),
    *(aten.permute.default, aten.transpose.int, aten.t.default, aten.flatten.using_ints),
    *(aten.repeat.default, aten.flip.default),
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
_RANGES = {aten.arange.default, aten.arange.start, aten.arange.start_step}
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


@dataclass(frozen=True)
class _Part:
    """The values of an input, or of one position along one of its axes.

    Attributes
    ----------
    name : str
        The input.
    axes : tuple of int or None
        For each dimension of a node with these values, the axis of the input; None if the node
        mixes the axes up.
    place : tuple of (int, int), or None
        The axis and the position; None for the whole input.
    """

    name: str
    axes: tuple[int | None, ...] = ()
    place: tuple[int, int] | None = None


# Where the values of a node come from: parts of inputs, or numbers from 0 to a bound.
_Values = Sequence[_Part | Bound]
_Range = tuple[Bound, Bound]


def value_ranges(
    graph: torch.fx.Graph, inputs: Iterable[str]
) -> tuple[dict[str, _Range], tuple[str, ...]]:
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
    values: dict[Node, _Values] = {}  # of nodes all of whose values are known to come from these
    derived: dict[Node, set[str]] = {}  # the inputs that the values of other nodes depend on
    wanted: dict[str, dict[tuple[int, int] | None, _Range]] = {}  # by input and place
    unchecked: set[str] = set()

    def sources(nodes: Collection[Node]) -> set[str]:
        parts = (part for node in nodes for part in values.get(node, ()))
        found = {part.name for part in parts if isinstance(part, _Part)}
        return found.union(*(derived.get(node, ()) for node in nodes))

    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in names and _is_integer(node):
                values[node] = [_Part(node.name, tuple(range(node.meta["val"].dim())))]
            elif node.name in names:
                derived[node] = {node.name}
        uses = list(_uses(node))
        for index, size, wraps in uses:
            known: _Values = values.get(index, ())
            if not known or not all(_at_most(v, size) for v in known if not isinstance(v, _Part)):
                unchecked |= derived.get(index, set())
            for part in known:
                if isinstance(part, _Part):
                    ranges = wanted.setdefault(part.name, {})
                    together = _intersection(ranges.get(part.place), _valid(size, wraps))
                    if together is None:
                        unchecked.add(part.name)
                    else:
                        ranges[part.place] = together
        unchecked |= sources(_unknown_uses(node, {index for index, _, _ in uses}))
        if node.op == "placeholder":
            continue
        if (found := _values(node, values)) is not None:
            values[node] = found
        if not _has_positions(node):
            derived[node] = sources(node.all_input_nodes)
    shapes = {n.name: n.meta["val"].shape for n in graph.nodes if n.name in wanted}
    result = {}
    for name, ranges in wanted.items():
        together, is_whole = _whole(ranges, shapes[name])
        if together is not None:
            result[name] = together
        if not is_whole:
            unchecked.add(name)
    return result, tuple(sorted(unchecked))


def _whole(
    ranges: dict[tuple[int, int] | None, _Range], shape: Sequence[Any]
) -> tuple[_Range | None, bool]:
    """One range for all parts of an input, and whether that checks each of them.

    An input has no such range if one of its parts does not index at all: this part may have any
    values. It has none either if its parts index tables of different sizes. Negative indices are
    valid only if all parts may have them.
    """
    together = ranges.get(None)
    parts = [place for place in ranges if place is not None]
    if together is None:
        axes = {axis for axis, _ in parts}
        count = shape[axes.pop()]
        if axes or not isinstance(count, int) or len(parts) != count:
            return None, False
    for place in parts:
        both = _intersection(together, ranges[place])
        # Those of the whole input count for its parts, too.
        same = {together[1], ranges[place][1]} if together and None not in ranges else set()
        if both is None or len(same) > 1 or (together and both[1] != together[1]):  # other tables
            return ranges.get(None), False
        together = both
    is_whole = None not in ranges or together == ranges[None]
    return (together if is_whole else ranges[None]), is_whole


def _values(node: Node, values: dict[Node, _Values]) -> _Values | None:
    """Where the values of a node come from, if that is known."""
    if _dtype(node) == torch.bool:
        return [1]
    if node.target is aten.clamp.default and len(node.args) == 3 and _are_indices(node):
        return [node.args[2]]  # type: ignore[list-item]
    if node.target in _RANGES and _is_integer(node):
        return _counted(node)
    if node.target is aten.cat.default:
        tensors: Any = node.args[0]
        if not all(tensor in values for tensor in tensors):
            return None
        dim: Any = node.args[1] if len(node.args) > 1 else 0
        dim %= node.meta["val"].dim()
        pieces = [v for tensor in tensors for v in values[tensor]]
        return [_at(v, lambda axes: _without(axes, dim)) for v in pieces]
    first = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    if node.target is operator.getitem and first is not None:  # of the results of unbind
        if first.target is not aten.unbind.int or first.args[0] not in values:
            return None
        dim = first.args[1] if len(first.args) > 1 else 0
        return _selected(first.args[0], dim, node.args[1], values)  # type: ignore[arg-type]
    if first is None or first not in values:
        return None
    if node.target is aten.select.int:
        return _selected(first, node.args[1], node.args[2], values)
    if node.target not in _KEEPING:
        return None
    kept = values[first]
    if any(isinstance(v, _Part) for v in kept) and not _is_integer(node):
        return None
    rank = first.meta["val"].dim()
    if node.target in _IN_PLACE:
        return kept
    order = _order(node, rank)
    return [_at(v, lambda axes: tuple(axes[i] for i in order) if axes else ()) for v in kept]


def _at(value: _Part | Bound, moved: Any) -> _Part | Bound:
    return replace(value, axes=moved(value.axes)) if isinstance(value, _Part) else value


def _without(axes: tuple[int | None, ...], dim: int) -> tuple[int | None, ...]:
    return tuple(None if n == dim else axis for n, axis in enumerate(axes))


def _order(node: Node, rank: int) -> Sequence[int]:
    """The dimension of its argument that each dimension of a node is; empty if they are mixed."""
    if node.target is aten.permute.default:
        dims: Any = node.args[1]
        return [dim % rank for dim in dims]
    if node.target in (aten.transpose.int, aten.t.default):
        order = list(range(rank))
        a, b = node.args[1:] if node.target is aten.transpose.int else (0, rank - 1)
        order[a], order[b] = order[b], order[a]  # type: ignore[index]
        return order
    return ()


def _selected(source: Node, dim: Any, position: Any, values: dict[Node, _Values]) -> _Values | None:
    """The values at one position along a dimension."""
    shape = source.meta["val"].shape
    dim = dim % len(shape)
    found: list[_Part | Bound] = []
    for value in values[source]:
        if not isinstance(value, _Part):
            found.append(value)
            continue
        axis = value.axes[dim] if value.axes else None
        if axis is None or value.place is not None or not isinstance(position, int):
            return None
        if position < 0:
            if not isinstance(shape[dim], int):
                return None
            position += shape[dim]
        axes = (*value.axes[:dim], *value.axes[dim + 1 :])
        found.append(replace(value, axes=axes, place=(axis, position)))
    return found


def _counted(node: Node) -> _Values | None:
    """The values of ``arange``."""
    numbers = dict(_arguments(node))
    start, step = numbers.get("start", 0), numbers.get("step", 1)
    end = numbers.get("end")
    end = end.meta["val"] if isinstance(end, Node) else end
    if not isinstance(start, int) or start < 0 or step != 1:
        return None
    if isinstance(end, int):
        return [max(end - 1, 0)]
    return [f"({end}) - 1"] if isinstance(end, torch.SymInt) else None


def _valid(size: Bound, wraps: bool) -> _Range:
    """The valid indices of a dimension; with `wraps`, negative ones count from the end."""
    if isinstance(size, int):
        return (-size if wraps else 0), size - 1
    return (f"-1*({size})" if wraps else 0), f"({size}) - 1"


def _at_most(bound: Bound, size: Bound) -> bool:
    """Whether an index up to a bound is valid for all sizes."""
    return _least(_valid(size, False)[1], bound) == bound


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
    if node.target == torch.ops.aoti.recurrent_layer.default:
        return []  # lengths, which are compared with the number of a step
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


def _intersection(known: _Range | None, more: _Range) -> _Range | None:
    """The values in both ranges; None if they cannot be compared."""
    if known is None:
        linear = all(isinstance(bound, int) or affine(bound) for bound in more)
        return more if linear else None
    low, high = _largest(known[0], more[0]), _least(known[1], more[1])
    return None if low is None or high is None else (low, high)


def _least(a: Bound, b: Bound) -> Bound | None:
    """The smaller one of two bounds, whatever the sizes are; None if that depends on them."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    # Sizes are not negative: neither is a sum whose terms are not.
    difference = polynomial(f"{a} - ({b})")
    if difference is None:
        return None
    if all(factor >= 0 for factor in difference.values()):
        return b
    return a if all(factor <= 0 for factor in difference.values()) else None


def _largest(a: Bound, b: Bound) -> Bound | None:
    least = _least(a, b)
    return least if least is None or a == b else a if least == b else b
