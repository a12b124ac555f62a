"""The conditions on sizes that torch assumed while it traced a program.

They hold for the sizes of the examples. torch checks them before a run of
``ExportedProgram.module()``; compiled code does not. A program may also contain conditions as
nodes, which compiled code does check. If the sizes of the inputs decide such a condition, it is
checked before a run all the same: the error then names the sizes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree
from torch.utils._sympy.printers import PythonPrinter

from aoti.errors import ExportError
from aoti.exporting.capture.containers import plain_arguments
from aoti.exporting.describe.program_signature import TRACED_FROM, parameters
from aoti.signature.size_guard import SizeGuard, sizes_that_break

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
    found |= dict.fromkeys(guard.text for guard in _deferred(program, symbols))
    return tuple(sorted(found, key=len))  # messages show the first that does not hold


def refuse_narrowed(
    program: torch.export.ExportedProgram, names: Mapping[str, str], declared: Mapping[str, Dim]
) -> None:
    """Refuse a program with deferred conditions that do not hold for all declared sizes.

    As torch does otherwise, this looks at conditions on a single size only.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program.
    names : mapping of str to str
        The names of the symbols in the program.
    declared : mapping of str to torch.export.Dim
        The sizes that should be dynamic.

    Raises
    ------
    ExportError
        The message contains the condition, or the size that torch fixed or narrowed.
    """
    ranges = {}
    for size, bounds in program.range_constraints.items():
        low, high = bounds.lower, bounds.upper
        if size.is_Symbol and low.is_Integer:
            ranges[str(size)] = int(low), int(high) if high.is_Integer else None
    for name, dim in declared.items():
        low, high = next((ranges[s] for s in ranges if names.get(s) == name), (None, None))
        theirs = dim.max
        if low is None or low > max(dim.min, TRACED_FROM) or (high or theirs) < theirs:
            raise ExportError(
                f"size {name!r} cannot have all values\nnarrow its range, or give it a fixed value"
            )
    lowest = {name: low for name, (low, _) in ranges.items()}
    for guard in _deferred(program, lowest.keys()):
        if len(guard.symbols) == 1 and sizes_that_break(guard.text, ranges, lowest):
            raise _refusal(guard.text)


def _deferred(program: torch.export.ExportedProgram, known: Set[str]) -> Iterator[SizeGuard]:
    """The conditions that nodes of a program check, as far as they are over known symbols."""
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_scalar.default:
            value = getattr(node.args[0], "meta", {}).get("val")
            if isinstance(value, torch.SymBool):
                try:
                    text = ast.unparse(ast.parse(_PRINTER.doprint(value.node.expr), mode="eval"))
                    guard = SizeGuard.parse(text)
                except ValueError:  # the compiled code checks it
                    continue
                if guard.symbols and guard.symbols <= known:
                    yield guard


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
