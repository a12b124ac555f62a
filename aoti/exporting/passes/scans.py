"""Scans whose results have dynamic sizes.

Inductor allocates the results of a scan with sizes that it takes from the scan's arguments only
(torch/_inductor/fx_passes/post_grad.py, `decompose_scan_to_while_loop`). Strict tracing adds them
to the arguments; non-strict tracing does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from aoti.exporting.passes.graph_editing import copied, finished

_SCAN = torch.ops.higher_order.scan


def scans_with_sizes(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Pass the dynamic sizes of a scan's results to it.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    torch.export.ExportedProgram
        A program with the same weights; `program` itself if its scans have all sizes.
    """
    if not any(_missing(node) for node in program.graph.nodes):
        return program
    program = copied(program)
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        for symbol in _missing(node):
            _pass_size(node, symbol)
    return finished(program)


def _missing(node: Node) -> list[Any]:
    """The symbols in the sizes of a scan's results that are not among its arguments."""
    if node.target is not _SCAN:
        return []
    results = [value for value in node.meta["val"] if isinstance(value, torch.Tensor)]
    needed = {
        symbol
        for result in results
        for size in (*result.shape, *result.stride())
        if isinstance(size, torch.SymInt)
        for symbol in size.node.expr.free_symbols
    }
    given = {_expression(argument) for argument in pytree.tree_leaves(node.args[1:])}
    return sorted(needed - given, key=str)


def _expression(argument: Any) -> Any:
    value = argument.meta.get("val") if isinstance(argument, Node) else None
    return value.node.expr if isinstance(value, torch.SymInt) else None


def _pass_size(scan: Node, symbol: Any) -> None:
    """Add the size with this symbol to the arguments of a scan and of its body."""
    graph = scan.graph
    for tensor, dim in _sizes(graph, scan):
        size = tensor.meta["val"].shape[dim]
        if isinstance(size, torch.SymInt) and size.node.expr == symbol:
            break
    else:
        return
    with graph.inserting_before(scan):
        argument = graph.call_function(torch.ops.aten.sym_size.int, (tensor, dim))
    argument.meta["val"] = size
    body, init, xs, more = scan.args
    scan.args = (body, init, xs, (*more, argument))  # type: ignore[misc]
    module = getattr(graph.owning_module, body.target)  # type: ignore[union-attr,arg-type]
    last = module.graph.find_nodes(op="placeholder")[-1]
    with module.graph.inserting_after(last):
        module.graph.placeholder(f"size_{symbol}").meta["val"] = size
    module.recompile()


def _sizes(graph: Graph, before: Node) -> Iterator[tuple[Node, int]]:
    """The dimensions of all tensors before a node."""
    for node in graph.nodes:
        if node is before:
            return
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            yield from ((node, dim) for dim in range(value.dim()))
