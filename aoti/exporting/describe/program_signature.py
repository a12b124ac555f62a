"""The signature of a model, from the program that it is compiled from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, TensorArgument
from torch.utils import _pytree as pytree

from aoti._version import __version__
from aoti.errors import PackageError
from aoti.exporting.capture.containers import Structure
from aoti.exporting.capture.dynamic_shapes import shapes_by_tensor
from aoti.exporting.describe.index_ranges import value_ranges
from aoti.signature.signature import Signature
from aoti.signature.size_expr import polynomial
from aoti.signature.size_guard import Range
from aoti.signature.spec import ConstantSpec, Dim, TensorSpec

TRACED_FROM = 2  # the least size that torch traces a dynamic size with
_LONGEST_SIZE = 200  # characters of a size expression


def describe_program(
    structure: Structure, symbol_names: Mapping[str, str], guards: Sequence[str] = ()
) -> Signature:
    """The signature of the package of a program.

    Parameters
    ----------
    structure : Structure
        The program, and the structure of its calls.
    symbol_names : mapping of str to str
        The names that the user gave to symbols: see `names_of_symbols`.
    guards : sequence of str
        What was assumed of the symbols: see `aoti.exporting.describe.size_guards`.

    Raises
    ------
    ValueError
        The program has an argument that a package cannot have: a number that may change.
    """
    program, documents = structure.program, structure.call_spec
    functional = structure.functional
    graph_signature = functional.graph_signature
    values = {n.name: n.meta.get("val") for n in functional.graph.nodes}
    rename = _Renaming(symbol_names)
    positional = parameters(program)
    fields = dict(field for document in documents for field in _fields(document))

    arguments = [spec.arg for spec in graph_signature.input_specs if _is_user(spec)]
    tensors = [arg.name for arg in arguments if isinstance(arg, TensorArgument)]
    indexing, unchecked = value_ranges(functional.graph, tensors)
    mutated = set(graph_signature.user_inputs_to_mutate.values())
    described: list[TensorSpec | ConstantSpec] = []
    for arg in arguments:
        if isinstance(arg, TensorArgument):
            bounds = indexing.get(arg.name)
            described.append(
                rename.tensor(
                    arg.name,
                    values[arg.name],
                    mutated=arg.name in mutated,
                    bounds=bounds and (rename.size(bounds[0]), rename.size(bounds[1])),
                )
            )
        elif isinstance(arg, ConstantArgument):
            described.append(ConstantSpec(arg.name, arg.value))
        else:
            raise ValueError(
                f"argument {arg.name!r} is a number that may change from call to call, which a "
                "package cannot take: pass it as a tensor, or leave it out of dynamic_shapes"
            )
    tensor_results = (
        rename.tensor(spec.arg.name, values[spec.arg.name])
        for spec in graph_signature.output_specs
        if _is_user(spec)
    )
    signature = Signature(
        arguments=tuple(described),
        results=tuple(constant or next(tensor_results) for constant in structure.results),
        ranges=rename.ranges(program.range_constraints),
        guards=tuple(map(rename.text, guards)),
        call_spec=documents,
        parameters=positional,
        fields=fields,
        exporter=f"aoti {__version__}, torch {torch.__version__}",
    )
    try:
        plan = signature.plan(documents)
    except PackageError:  # a type that only this program has: names stay as they are
        return replace(signature, unchecked_indices=unchecked)
    names = dict(zip((arg.name for arg in arguments), plan.input_names, strict=True))
    return replace(
        signature.renamed(plan), unchecked_indices=tuple(names[name] for name in unchecked)
    )


def names_of_symbols(
    program: torch.export.ExportedProgram,
    examples: Any,
    dynamic_shapes: Any,
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The names that ``torch.export.Dim`` gave to the symbols of a program's inputs.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The exported program.
    examples : tuple
        The arguments it was exported with, ``(args, kwargs)``, without repeated tensors.
    dynamic_shapes : object
        As passed to ``torch.export.export``.
    arguments : mapping, optional
        The same arguments by name. Needed for a module with ``*args``.
    """
    if arguments is None:
        args, kwargs = examples
        arguments = {**dict(zip(parameters(program), args, strict=False)), **kwargs}
    dims = shapes_by_tensor(arguments, dynamic_shapes)
    placeholders = {n.name: n.meta.get("val") for n in program.graph.nodes}
    user_inputs = [s.arg for s in program.graph_signature.input_specs if _is_user(s)]
    names: dict[str, str] = {}
    for arg, example in zip(user_inputs, pytree.tree_leaves(examples), strict=True):
        wanted = dims.get(id(example))
        if not isinstance(arg, TensorArgument) or wanted is None:
            continue
        items = wanted.items() if isinstance(wanted, Mapping) else enumerate(wanted)
        for dim, named in items:
            size = placeholders[arg.name].shape[dim]
            name = getattr(getattr(named, "root", named), "__name__", None)
            symbols = getattr(getattr(size, "node", None), "expr", None)
            if name is not None and symbols is not None and len(symbols.free_symbols) == 1:
                names[str(*symbols.free_symbols)] = name
    return names


class _Renaming:
    """Sizes as text, with the names that the user gave them."""

    def __init__(self, names: Mapping[str, str]) -> None:
        # Two symbols with one name could not be told apart.
        unique = len(set(names.values())) == len(names)
        self._names = dict(names) if unique else {}

    def text(self, expression: object) -> str:
        return re.sub(r"\b\w+\b", lambda m: self._names.get(m[0], m[0]), str(expression))

    def size(self, value: Any) -> int | Dim:
        if isinstance(value, int):
            return value
        text = self.text(value)
        return Dim(text if len(text) <= _LONGEST_SIZE else "?")

    def tensor(
        self,
        name: str,
        value: torch.Tensor,
        *,
        mutated: bool = False,
        bounds: tuple[int | Dim, int | Dim] | None = None,
    ) -> TensorSpec:
        strides = [self.text(stride) for stride in value.stride()]
        return TensorSpec(
            name=name,
            dtype=str(value.dtype).removeprefix("torch."),
            shape=tuple(self.size(size) for size in value.shape),
            strides=tuple(s if s == "0" or polynomial(s) else "?" for s in strides),
            device=value.device.type,
            mutated=mutated,
            values=bounds,
        )

    def ranges(self, constraints: Mapping[Any, Any]) -> dict[str, Range]:
        found = {
            self.text(symbol): (_bound(bounds.lower), _bound(bounds.upper))
            for symbol, bounds in constraints.items()
            if symbol.is_Symbol
        }
        for size, bounds in constraints.items():
            # torch keeps the range that the user gave to n for 4*n only, and narrows that of n
            # to 2 and more, as it does while tracing.
            factor, symbol = size.as_coeff_Mul()
            name = self.text(symbol)
            low, is_multiple = _bound(bounds.lower), symbol.is_Symbol and factor > 1
            if is_multiple and low is not None and found.get(name, (0, None))[0] == TRACED_FROM:
                found[name] = (min(TRACED_FROM, -(-low // int(factor))), found[name][1])
        return found


def _bound(value: Any) -> int | None:
    return int(value) if value.is_Integer else None  # otherwise it is infinity


def _is_user(spec: Any) -> bool:
    return bool(spec.kind.name in ("USER_INPUT", "USER_OUTPUT"))


def parameters(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """The names of the positional arguments, as many as the program was exported with."""
    signature = program.module_call_graph[0].signature
    names: Sequence[str] = (signature and signature.forward_arg_names) or ()
    count = program.call_spec.in_spec.child(0).num_children
    return tuple(names[:count])


def _fields(document: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The field names of the namedtuples in a treespec, by their type names there."""

    def walk(node: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
        if node["type"] == "collections.namedtuple":
            yield node["context"], pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[node["context"]]._fields
        for child in node["children_spec"]:
            yield from walk(child)

    yield from walk(json.loads(document)[1])
