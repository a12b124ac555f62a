"""Editing exported programs: copying them, and replacing nodes by the graph of a function."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

# A rewritten program, and a report for people.
Rewritten = tuple[torch.export.ExportedProgram, list[str]]

_ORIGIN = (
    "nn_module_stack",
    "stack_trace",
    "torch_fn",
)  # where in the user's code a node comes from


def copied(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """A program with a copy of the graph, and the same weights."""
    module = copy.deepcopy(program.graph_module)
    # A copied graph renames nodes with names of builtins, such as "input"; the signature uses them.
    for node, original in zip(module.graph.nodes, program.graph_module.graph.nodes, strict=True):
        node.name = original.name
    return torch.export.ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=copy.deepcopy(program.graph_signature),
        state_dict=program.state_dict,
        range_constraints=dict(program.range_constraints),
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def finished(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Check and recompile a program after its graph was edited."""
    graph = program.graph_module.graph
    graph.lint()
    program.graph_module.recompile()
    return program


def arguments(node: Node) -> dict[str, Any]:
    """All arguments of a call of an operator by name, including defaults."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    values = {argument.name: argument.default_value for argument in schema}
    values.update(zip(values, node.args, strict=False))
    return {**values, **node.kwargs}


def reshape_views(graph: Graph) -> None:
    """Let views copy if they must, since rewrites change the memory layout of results.

    Views before an operator that writes in place stay: it may have to write through them.
    """
    for node in reversed(graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            return
        if node.target == torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default


def replace(node: Node, function: Callable[..., Any], inputs: Sequence[Node]) -> None:
    """Replace a node by the graph of a function.

    Parameters
    ----------
    node : torch.fx.Node
        The node to replace.
    function : callable
        Plain torch code that takes as many tensors as there are inputs, and returns a tensor, or a
        tuple of tensors if the node does. It is traced with the symbolic sizes of the program, so
        that dynamic sizes stay dynamic.
    inputs : sequence of torch.fx.Node
        The inputs of the function.
    """

    def positional(*tensors: torch.Tensor) -> Any:
        return function(*tensors)

    with torch.no_grad(), inputs[0].meta["val"].fake_mode:
        traced = make_fx(positional, tracing_mode="symbolic")(
            *(argument.meta["val"] for argument in inputs)
        )
    graph: Graph = node.graph
    placeholders = [inner for inner in traced.graph.nodes if inner.op == "placeholder"]
    mapping = dict(zip(placeholders, inputs, strict=True))
    with graph.inserting_before(node):
        output: Any = graph.graph_copy(traced.graph, mapping)
    for inner, outer in mapping.items():
        if inner.op == "call_function":
            outer.meta |= {key: node.meta[key] for key in _ORIGIN if key in node.meta}
    if isinstance(output, Node):
        _take_place(node, output)
        return
    for user in list(node.users):
        assert user.target == operator.getitem
        _take_place(user, output[user.args[1]])
    graph.erase_node(node)


def _take_place(node: Node, other: Node) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
    other.name = node.name  # the signature refers to outputs of the program by name
