"""The conditions on sizes that torch assumed while it traced a program.

They hold for the sizes of the examples. torch checks them before a run of
``ExportedProgram.module()``; compiled code does not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._sympy.printers import PythonPrinter

from aoti.errors import ExportError
from aoti.exporting.capture.containers import plain_arguments
from aoti.exporting.describe.program_signature import parameters
from aoti.signature.size_guard import SizeGuard

_SOURCE = re.compile(r"L(?:\[(?:'[^']*'|\"[^\"]*\"|\d+)\]|\.\w+)+?\.(?:size\(\)|shape)\[\d+\]")
_TORCH_FUNCTIONS = {"torch.sym_float": "float", "torch._sym_sqrt": "math.sqrt"}
_PRINTER = PythonPrinter()


def size_guards(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """The guards of a program over the symbols of its input sizes, as `SizeGuard` reads them.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program as it was traced or loaded. Decomposing it adds guards of the decomposition,
        which compiled code does not need.

    Raises
    ------
    ExportError
        A guard cannot be checked at calls. The message contains the guard.
    """
    arguments = _arguments(program)
    symbols = _bound_symbols(arguments["flat_args"])
    found: dict[str, None] = {}
    for written in _written(program):
        try:
            text = _over_symbols(arguments, written)
            guard = SizeGuard.parse(text)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise _refusal(written) from error
        if _is_trivial(text) or (not guard.symbols and guard.holds({})):
            continue
        if not guard.symbols <= symbols:
            raise _refusal(written)
        found[text] = None
    return tuple(sorted(found, key=len))  # messages show the first that does not hold


def _written(program: torch.export.ExportedProgram) -> Iterator[str]:
    yield from program._guards_code
    for size, bounds in program.range_constraints.items():
        if not size.is_Symbol:  # the ranges of symbols are in the signature
            text = f"({_PRINTER.doprint(size)})"
            if bounds.lower.is_Integer:
                yield f"{text} >= {bounds.lower}"
            if bounds.upper.is_Integer:
                yield f"{text} <= {bounds.upper}"


def _over_symbols(arguments: Mapping[str, Any], written: str) -> str:
    """A guard over the compiler's symbols, in place of ``L['x'].size()[0]``."""

    def size(match: re.Match[str]) -> str:
        value = _size_at(ast.parse(match[0], mode="eval").body, arguments)
        node = getattr(value, "node", None)
        return str(value) if node is None else f"({_PRINTER.doprint(node.expr)})"

    text = _SOURCE.sub(size, written)
    for theirs, ours in _TORCH_FUNCTIONS.items():
        text = text.replace(f"{theirs}(", f"{ours}(")
    return ast.unparse(ast.parse(text.strip(), mode="eval"))


def _size_at(node: ast.expr, arguments: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name("L"):
            return arguments
        case ast.Subscript(value, ast.Constant(key)):
            return _size_at(value, arguments)[key]
        case ast.Call(ast.Attribute(value, "size")) | ast.Attribute(value, "shape"):
            return _size_at(value, arguments).shape
        case ast.Attribute(value, name):
            container = _size_at(value, arguments)
            return container[name] if isinstance(container, dict) else getattr(container, name)
    raise ValueError(f"not a size: {ast.unparse(node)}")


def _arguments(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """The fake tensors of the arguments, by the names of the parameters."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    leaves = [
        values.get(getattr(spec.arg, "name", ""), getattr(spec.arg, "value", None))
        for spec in program.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT"
    ]
    # Not in the containers of the program: their constructors may look at tensors.
    structure = pytree.tree_structure(plain_arguments(program))
    args, kwargs = pytree.tree_unflatten(leaves, structure)
    names = parameters(program)
    named = dict(zip(names, args, strict=False))
    variadic: dict[str, list[Any]] = {}  # torch names the arguments of *xs xs_0, xs_1 ...
    for name, value in named.items():
        if match := re.fullmatch(r"(\w+)_\d+", name):
            variadic.setdefault(match[1], []).append(value)
    # Strict tracing names all leaves together flat_args.
    return {**variadic, **named, **kwargs, "flat_args": leaves}


def _bound_symbols(leaves: list[Any]) -> set[str]:
    """The symbols that the size of an input shows: it is the symbol, times and plus a number."""
    found = set()
    for value in leaves:
        for size in value.shape if isinstance(value, torch.Tensor) else ():
            expression = getattr(getattr(size, "node", None), "expr", None)
            if expression is not None and len(expression.free_symbols) == 1:
                (symbol,) = expression.free_symbols
                if expression.as_poly(symbol) is not None and expression.as_poly().degree() == 1:
                    found.add(str(symbol))
    return found


def _is_trivial(text: str) -> bool:
    """Whether it compares a size with itself, as those of sizes that torch found to be equal."""
    match ast.parse(text, mode="eval").body:
        case ast.Compare(left, [ast.Eq() | ast.LtE() | ast.GtE()], [right]):
            return ast.dump(left) == ast.dump(right)
    return False


def _refusal(guard: str) -> ExportError:
    return ExportError(
        f"the trace holds only for sizes with {guard}, which cannot be checked before a run\n"
        "give these sizes fixed values, or change the code that compares them"
    )
