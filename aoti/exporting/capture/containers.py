"""Plain containers in place of types that only the exporting program has.

A package describes its arguments and results by treespecs. Dataclasses, ``ModelOutput`` and other
registered types become plain dicts with the same names. Compiled code returns tensors only: a
result that is not a tensor (None, a number, a string) is moved into the signature.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from aoti.errors import ExportError
from aoti.signature.spec import ConstantSpec

_KNOWN = {tuple, list, dict, OrderedDict, defaultdict, deque}


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


@contextlib.contextmanager
def torch_at_ease() -> Iterator[None]:
    """Hide warnings of functions that torch deprecates and uses itself, as it copies programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@torch_at_ease()
def simplify(program: torch.export.ExportedProgram) -> Structure:
    """Remove the types and results that a package cannot describe or compute.

    Raises
    ------
    ExportError
        It returns a number that changes from call to call, or a type that cannot be made again
        from its parts.
    """
    in_spec, out_spec = program.call_spec.in_spec, program.call_spec.out_spec
    plain_in = pytree.tree_structure(plain_arguments(program))
    constants = _constant_results(program)
    leaves, plain_out = pytree.tree_flatten(plain(_example_result(program, constants)))
    # None in a field of a dataclass is not a leaf of it, but it is a leaf of a dict.
    results = tuple(
        None if isinstance(leaf, torch.Tensor) else ConstantSpec("", leaf) for leaf in leaves
    )
    tensors = results.count(None)
    if tensors != out_spec.num_leaves - len(constants):
        raise ExportError(
            f"{_types(out_spec)} in the result gives other tensors than it was made of\n"
            "return a plain dict or tuple instead"
        )
    call_spec = pytree.treespec_dumps(plain_in), pytree.treespec_dumps(plain_out)
    compiled_out = pytree.tree_structure((0,) * tensors) if any(results) else plain_out
    if (plain_in, compiled_out) != (in_spec, out_spec):
        program = _restructured(program, plain_in, compiled_out, constants)
    return Structure(program, program.run_decompositions({}), call_spec, results)


def plain_arguments(
    program: torch.export.ExportedProgram,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example arguments of a program, in the structure of calls of its package."""
    args, kwargs = program.example_inputs
    return _plain(args, absent=False), _plain(kwargs, absent=False)


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


def _example_result(
    program: torch.export.ExportedProgram, constants: Mapping[int, ConstantSpec]
) -> Any:
    """A result of the program's types, of zeros: their constructors may look at tensors."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    results = [s.arg for s in program.graph_signature.output_specs if _is_result(s)]
    leaves = [
        constants[n].value if n in constants else _zeros(values[arg.name])
        for n, arg in enumerate(results)
    ]
    spec = program.call_spec.out_spec
    try:
        return pytree.tree_unflatten(leaves, spec)
    except Exception as error:  # of the constructor of a registered type
        raise ExportError(
            f"{_types(spec)} in the result cannot be made from its parts: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}\n"
            "return a plain dict or tuple instead"
        ) from error


def _zeros(value: torch.Tensor) -> torch.Tensor:
    sizes = [1 if hint is None else int(hint) for hint in map(_hint, value.shape)]
    return torch.zeros(sizes, dtype=value.dtype)


def _hint(size: Any) -> int | None:
    """The size in the example; None if it follows from values of tensors."""
    return size if isinstance(size, int) else size.node.hint


def _types(spec: pytree.TreeSpec) -> str:
    """The names of the types in a structure that are not Python's own."""

    def walk(node: pytree.TreeSpec) -> Iterator[str]:
        if not node.is_leaf() and node.type not in (*_KNOWN, namedtuple):
            yield node.type.__name__
        for child in node.children():
            yield from walk(child)

    return ", ".join(dict.fromkeys(walk(spec)))


def plain(value: Any) -> Any:
    """The same value with plain containers.

    Its leaves have the order of torch's. Fields of dataclasses that are None are among them, which
    torch leaves out.
    """
    return _plain(value, absent=True)


def _plain(value: Any, *, absent: bool) -> Any:
    kind: Any = type(value)
    recurse = partial(_plain, absent=absent)
    if kind in (tuple, list):
        return kind(map(recurse, value))
    if kind is deque:
        return deque(map(recurse, value), value.maxlen)
    if kind is defaultdict:
        return defaultdict(value.default_factory, {k: recurse(v) for k, v in value.items()})
    if pytree.is_namedtuple_class(kind):
        _name_for_treespecs(kind)
        return kind._make(map(recurse, value))
    parts: dict[Any, Any] | tuple[Any, ...]
    if is_registered(value):
        parts = parts_of(value)
    elif isinstance(value, Mapping):
        parts = dict(value)
    elif dataclasses.is_dataclass(value):
        parts = {}
    else:
        return value
    if isinstance(parts, tuple):
        return tuple(map(recurse, parts))
    if absent and dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        fields = (field.name for field in dataclasses.fields(value) if field.init)
        parts |= {name: getattr(value, name) for name in fields if name not in parts}
    pairs = ((key, recurse(item)) for key, item in parts.items())
    return OrderedDict(pairs) if kind is OrderedDict else dict(pairs)


def is_registered(value: Any) -> bool:
    """Whether a value is a container of a type that a program registered with torch."""
    return type(value) in pytree.SUPPORTED_NODES and type(value) not in _KNOWN


def parts_of(value: Any) -> dict[Any, Any] | tuple[Any, ...]:
    """The children of a registered container: by name, or in order if they do not have names."""
    node = pytree.SUPPORTED_NODES[type(value)]
    if node.flatten_with_keys_fn is None:
        return tuple(node.flatten_fn(value)[0])
    named, _ = node.flatten_with_keys_fn(value)
    if all(isinstance(key, pytree.SequenceKey) for key, _ in named):
        return tuple(item for _, item in named)
    return {_key(key): item for key, item in named}


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
    graph_module, signature = deepcopy(program.graph_module), deepcopy(program.graph_signature)
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
