"""Tensors that a module keeps and changes: all become buffers, and those can become arguments."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Literal

import torch
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from aoti._warnings import warn
from aoti.errors import ExportError
from aoti.exporting.capture.attributes import REGISTRIES
from aoti.exporting.capture.containers import Structure, torch_at_ease
from aoti.exporting.capture.module_source import uncompiled
from aoti.exporting.capture.unregistered import HEAP_TYPE, attributes

Buffers = Literal["refuse", "reset", "arguments"]  # what to do with tensors that a call changes
ARGUMENT = "buffers"  # what the argument with the changed buffers is called

_KEPT = (InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


@contextlib.contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Undo what tracing does to tensors that are neither parameters nor buffers.

    The tracer runs some operators on them, and records gradients.
    """
    tensors = {_place(tensor): tensor for _, tensor in _tensors(module, "", set())}.values()
    before = [(tensor, tensor._version, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, version, value in before:
            if tensor._version != version and not tensor.is_leaf:
                tensor.detach_()
            if tensor._version != version and not tensor.requires_grad:
                tensor.copy_(value)


@torch_at_ease()
def with_buffers(
    program: torch.export.ExportedProgram, module: Any
) -> torch.export.ExportedProgram:
    """Make buffers of the constants that a program changes.

    torch takes tensors that are not buffers for constants: attributes, and what is in objects and
    lists. A tensor that is a buffer, too, becomes this buffer. Others are named by their place in
    the module, if that is not a program.
    """
    changed = _changed(program)
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind in _KEPT]
    places = {spec.arg.name: _place(_value(program, spec)) for spec in specs}
    affected = {places[spec.arg.name] for spec in specs if spec.arg.name in changed}
    constants = [
        spec
        for spec in specs
        if spec.kind == InputKind.CONSTANT_TENSOR and places[spec.arg.name] in affected
    ]
    if not constants:
        return program
    buffers = {places[s.arg.name]: s.arg.name for s in specs if s.kind == InputKind.BUFFER}
    module = uncompiled(module)
    found = _tensors(module, "", set()) if isinstance(module, torch.nn.Module) else ()
    paths = {_place(tensor): path for path, tensor in found}
    graph_module, signature = deepcopy(program.graph_module), deepcopy(program.graph_signature)
    nodes = {node.name: node for node in graph_module.graph.nodes}
    # Tracing records gradients of what the program writes into.
    values = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, dict(program.constants))
    kept = {spec.arg.name: spec for spec in signature.input_specs}
    for spec in constants:
        name, place = spec.arg.name, places[spec.arg.name]
        assert isinstance(spec.target, str)
        value = values.pop(spec.target)
        if place in buffers:
            nodes[name].replace_all_uses_with(nodes[buffers[place]])
            graph_module.graph.erase_node(nodes[name])
            del kept[name]
            continue
        target = paths.get(place, spec.target)
        values[target], buffers[place] = value, name
        kept[name] = InputSpec(InputKind.BUFFER, spec.arg, target, persistent=False)
    signature.input_specs = list(kept.values())
    graph_module.recompile()
    return program._update(graph_module, signature, constants=values)


def changed_buffers(structure: Structure) -> dict[str, torch.Tensor]:
    """The buffers that a program changes, by their names. The module has the same memory."""
    names = set(structure.functional.graph_signature.buffers_to_mutate.values())
    return {
        str(spec.target): _value(structure.program, spec)
        for spec in structure.program.graph_signature.input_specs
        if spec.kind == InputKind.BUFFER and spec.target in names
    }


@torch_at_ease()
def buffers_as_arguments(
    program: torch.export.ExportedProgram, state: Mapping[str, torch.Tensor]
) -> torch.export.ExportedProgram:
    """Make one more keyword argument of the buffers that a program changes: a dict by their names.

    Raises
    ------
    ExportError
        The program has an argument of this name.
    """
    args, kwargs = program.example_inputs
    call = program.module_call_graph[0].signature
    assert call is not None
    if ARGUMENT in kwargs or ARGUMENT in (call.forward_arg_names or ()):
        raise ExportError(
            f"the changed buffers would be passed as {ARGUMENT}=, and the module has an argument "
            "of this name\nrename it"
        )
    graph_module, signature = deepcopy(program.graph_module), deepcopy(program.graph_signature)
    moved = {s.arg.name: s for s in signature.input_specs if s.target in state}
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    last = placeholders[-1]
    for node in placeholders:
        if node.name in moved:
            last.append(node)
            last = node
    signature.input_specs = [
        *(spec for spec in signature.input_specs if spec.arg.name not in moved),
        *(InputSpec(InputKind.USER_INPUT, spec.arg, None) for spec in moved.values()),
    ]
    inputs = {str(spec.target): spec.arg.name for spec in moved.values()}
    for result in signature.output_specs:  # of a program that was decomposed
        if result.kind == OutputKind.BUFFER_MUTATION and result.target in inputs:
            result.kind, result.target = OutputKind.USER_INPUT_MUTATION, inputs[result.target]
    graph_module.recompile()
    others = {name: value for name, value in program.constants.items() if name not in state}
    weights = {name: value for name, value in program.state_dict.items() if name not in state}
    made = program._update(graph_module, signature, state_dict=weights, constants=others)
    # In the order of the placeholders.
    given = {str(spec.target): state[str(spec.target)].clone() for spec in moved.values()}
    made._example_inputs = args, {**kwargs, ARGUMENT: given}
    call = made.module_call_graph[0].signature
    assert call is not None
    call.in_spec = pytree.tree_structure(made.example_inputs)
    call.inputs = [*call.inputs, *(TensorArgument(name) for name in inputs.values())]
    call.forward_arg_names = [*(call.forward_arg_names or ()), ARGUMENT]
    return made


def check_state(
    program: torch.export.ExportedProgram, assigned: Mapping[str, str], buffers: Buffers
) -> None:
    """Refuse what a module reads and changes in a call; warn of what it only changes.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program, without operators that write in place.
    assigned : mapping of str to str
        The attributes that the module's code assigns, and the line that does.
    buffers : {'refuse', 'reset', 'arguments'}
        As for `aoti.export`.

    Raises
    ------
    ExportError
        It would start every call from the values at the export, which was not asked for.
    """
    buffer_names = program.graph_signature.buffers_to_mutate.values()
    read = [name for name in assigned if name in program.constants]
    changed = ", ".join((*buffer_names, *read))
    what = "attributes" if read else "buffers"
    if changed and buffers != "reset":
        cure = "make them arguments and results"
        if not read:
            cure = "export with buffers='arguments' to pass them to every call"
        raise ExportError(
            f"the module changes its {what} ({changed}), which a package does not keep from call "
            f"to call\n{cure}, or export with buffers='reset' to start every call from their "
            "exported values"
        )
    if changed:
        warn(
            f"the module changes its {what} ({changed}); in a package every call starts from "
            "their exported values"
        )
    written = [f"{name}{at and f' ({at})'}" for name, at in assigned.items() if name not in read]
    if written:
        warn(
            f"the module's code assigns attributes: {', '.join(written)}. A package does not keep "
            "them: every call starts from their values at the export, and a caller cannot read "
            "them. Return what a caller or the next call needs"
        )


def _value(program: torch.export.ExportedProgram, spec: InputSpec) -> Any:
    target = str(spec.target)
    return program.constants[target] if target in program.constants else program.state_dict[target]


def _place(value: Any) -> object:
    """What is equal for tensors with the same elements in memory."""
    if not isinstance(value, torch.Tensor):
        return id(value)
    storage = value.untyped_storage()._cdata
    return storage, value.storage_offset(), tuple(value.shape), value.stride()


def _tensors(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in the attributes of a module, and of all that it has, with their names."""
    if isinstance(value, torch.Tensor):
        yield path, value
    if isinstance(value, torch.Tensor | type) or id(value) in seen:
        return
    seen.add(id(value))
    parts: dict[Any, Any] = {}
    if isinstance(value, Mapping):
        parts = dict(value)
    elif isinstance(value, list | tuple):
        parts = dict(enumerate(value))
    elif type(value).__flags__ & HEAP_TYPE:
        parts = {name: part for name, part in attributes(value).items() if name not in REGISTRIES}
        if isinstance(value, torch.nn.Module):
            parts |= dict(value.named_children())
    for name, part in parts.items():
        yield from _tensors(part, f"{path}.{name}" if path else str(name), seen)


def _changed(program: torch.export.ExportedProgram) -> set[str]:
    """The names of the placeholders that operators of a program write into."""
    origins: dict[torch.fx.Node, torch.fx.Node] = {}
    changed = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            origins[node] = node
        elif isinstance(node.target, torch._ops.OpOverload):
            schema = node.target._schema
            given = dict(zip((a.name for a in schema.arguments), node.args, strict=False))
            given |= node.kwargs
            for argument in schema.arguments:
                value: Any = given.get(argument.name)
                origin = origins.get(value) if isinstance(value, torch.fx.Node) else None
                if origin is None or argument.alias_info is None:
                    continue
                if argument.alias_info.is_write:
                    changed.add(origin.name)
                if any(result.alias_info is not None for result in schema.returns):
                    origins[node] = origin  # a view of it
        elif node.target is operator.getitem and node.args[0] in origins:
            origins[node] = origins[node.args[0]]  # one of several views
    return changed
