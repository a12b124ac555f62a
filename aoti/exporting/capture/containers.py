"""Plain containers in place of types that only the exporting program has.

A package describes its arguments and results by treespecs. Dataclasses, ``ModelOutput`` and other
registered types become plain dicts with the same names. Compiled code returns tensors only: a
result that is not a tensor (None, a number, a string) is moved into the signature.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from aoti.errors import ExportError
from aoti.signature.spec import ConstantSpec

_KNOWN = {tuple, list, dict, OrderedDict, defaultdict, deque}


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """The place of a tensor or a number in a flat list."""

    index: int


@dataclasses.dataclass
class Structure:
    """The arguments and results of a package, without the types of the exporting program.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        The program to compile: its results are tensors only.
    functional : torch.export.ExportedProgram
        The same without operators that write into their arguments.
    call_spec : tuple of two str
        The input and the output treespec as JSON, of the whole call.
    results : tuple of ConstantSpec or None
        The leaves of the result: None for a tensor.
    """

    program: torch.export.ExportedProgram
    functional: torch.export.ExportedProgram
    call_spec: tuple[str, str]
    results: tuple[ConstantSpec | None, ...]


def simplify(program: torch.export.ExportedProgram) -> Structure:
    """Remove the types and results that a package cannot describe or compute.

    Raises
    ------
    ExportError
        It returns a number that changes from call to call, or a type without names.
    """
    in_spec, out_spec = program.call_spec.in_spec, program.call_spec.out_spec
    plain_in = pytree.tree_structure(plain(_placeholder(in_spec)))
    if plain_in.num_leaves != in_spec.num_leaves:
        # None in a field is not a leaf of the dataclass, but it is a leaf of a dict.
        raise ExportError(
            "an argument has a type with fields that are None\n"
            "pass a dict of the other fields instead"
        )
    constants = _constant_results(program)
    leaves, plain_out = pytree.tree_flatten(plain(_placeholder(out_spec)))
    order = [leaf.index for leaf in leaves if isinstance(leaf, _Leaf)]
    if order != list(range(out_spec.num_leaves)):
        raise ExportError(
            "the result has a type whose parts are in another order than its names\n"
            "return a plain dict or tuple instead"
        )
    results = tuple(
        constants.get(leaf.index) if isinstance(leaf, _Leaf) else ConstantSpec("", leaf)
        for leaf in leaves
    )
    call_spec = pytree.treespec_dumps(plain_in), pytree.treespec_dumps(plain_out)
    compiled_out = plain_out
    if any(results):
        tensors = sum(result is None for result in results)
        compiled_out = pytree.tree_structure((0,) * tensors)
    if (plain_in, compiled_out) != (in_spec, out_spec):
        program = _restructured(program, plain_in, compiled_out, constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch uses functions that it deprecates
        functional = program.run_decompositions({})
    return Structure(program, functional, call_spec, results)


def plain_arguments(
    program: torch.export.ExportedProgram,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example arguments of a program, in the structure of calls of its package."""
    args, kwargs = program.example_inputs
    return plain(args), plain(kwargs)


def _constant_results(program: torch.export.ExportedProgram) -> dict[int, ConstantSpec]:
    """The results that are not tensors, by their index among all results."""
    constants: dict[int, ConstantSpec] = {}
    results = [s.arg for s in program.graph_signature.output_specs if _is_result(s)]
    for index, arg in enumerate(results):
        if isinstance(arg, ConstantArgument):
            constants[index] = ConstantSpec("", arg.value)
        elif not isinstance(arg, TensorArgument):
            raise ExportError(
                f"result {index} is a number that changes from call to call, which a package "
                "cannot return\nreturn it as a tensor (torch.tensor(value)), or leave it out"
            )
    return constants


def _is_result(spec: Any) -> bool:
    return bool(spec.kind == OutputKind.USER_OUTPUT)


def _placeholder(spec: pytree.TreeSpec) -> Any:
    """A value of a structure, with the indices of the leaves for leaves."""
    return pytree.tree_unflatten([_Leaf(n) for n in range(spec.num_leaves)], spec)


def plain(value: Any) -> Any:
    """The same value with plain containers."""
    kind: Any = type(value)
    if kind is _Leaf or isinstance(value, torch.Tensor):
        return value
    if kind in (tuple, list):
        return kind(plain(item) for item in value)
    if kind is deque:
        return deque((plain(item) for item in value), value.maxlen)
    if kind is defaultdict:
        return defaultdict(value.default_factory, {k: plain(v) for k, v in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        _name_for_treespecs(kind)
        return kind._make(plain(item) for item in value)
    if isinstance(value, Mapping):
        pairs = ((key, plain(item)) for key, item in value.items())
        return OrderedDict(pairs) if kind is OrderedDict else dict(pairs)
    if dataclasses.is_dataclass(value):
        fields = (field.name for field in dataclasses.fields(value) if field.init)
        return {name: plain(getattr(value, name)) for name in fields}
    if kind in pytree.SUPPORTED_NODES and kind not in _KNOWN:
        flatten_with_keys = pytree.SUPPORTED_NODES[kind].flatten_with_keys_fn
        if flatten_with_keys is None:
            raise ExportError(
                f"{kind.__name__} is registered as a pytree without names for its parts\n"
                "register it with flatten_with_keys_fn, or use a dict instead"
            )
        named, _ = flatten_with_keys(value)
        return {_key(key): plain(item) for key, item in named}
    return value


def _key(entry: Any) -> Any:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)


def _name_for_treespecs(kind: Any) -> None:
    """Register a namedtuple under a name, which torch needs to write it into a treespec."""
    known = pytree.SUPPORTED_SERIALIZED_TYPES.get(kind)
    if known is None or known.serialized_type_name == pytree.NO_SERIALIZED_TYPE_NAME_FOUND:
        name = f"{kind.__module__}.{kind.__qualname__}"
        pytree._register_namedtuple(kind, serialized_type_name=name)


def _restructured(
    program: torch.export.ExportedProgram,
    in_spec: pytree.TreeSpec,
    out_spec: pytree.TreeSpec,
    constants: Mapping[int, ConstantSpec],
) -> torch.export.ExportedProgram:
    graph_module = deepcopy(program.graph_module)
    signature = deepcopy(program.graph_signature)
    result, kept = 0, []
    for spec in signature.output_specs:
        kept.append(not _is_result(spec) or result not in constants)
        result += _is_result(spec)
    output = graph_module.graph.output_node()
    values = output.args[0]
    output.args = (tuple(v for v, keep in zip(values, kept, strict=True) if keep),)
    graph_module.recompile()
    signature.output_specs = [
        s for s, keep in zip(signature.output_specs, kept, strict=True) if keep
    ]
    changed = program._update(graph_module, signature)
    call = changed.module_call_graph[0].signature
    assert call is not None
    call.in_spec, call.out_spec = in_spec, out_spec
    call.outputs = [s.arg for s in signature.output_specs if _is_result(s)]
    changed._example_inputs = plain_arguments(program)
    return changed
