"""Conditions on sizes that an export assumed, as Python expressions: ``batch % 2 == 0``.

torch records them while it traces: a branch on a size, or an operator that takes some sizes only.
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

Range = tuple[int | None, int | None]

_LONGEST = 10_000  # characters
_MOST_NODES = 2000  # with the next: bounds the work on hostile texts
_LARGEST_POWER = 16
_TRIES = 20_000  # of a search for sizes

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "float": float,
    "round": round,
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "math.trunc": math.trunc,
    "math.sqrt": math.sqrt,
}
_NODES = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow),
    *(ast.BitAnd, ast.BitOr, ast.BitXor),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
    *(ast.Call, ast.Name, ast.Load, ast.Constant),
)


@dataclass(frozen=True, slots=True)
class SizeGuard:
    """A condition on sizes.

    Attributes
    ----------
    text : str
        The condition over symbols of sizes.
    symbols : frozenset of str
        These symbols.
    """

    text: str
    symbols: frozenset[str]
    _code: CodeType

    @classmethod
    def parse(cls, text: str) -> SizeGuard:
        """Read a condition.

        Raises
        ------
        ValueError
            The text is not a condition that can be checked: it has other operators or functions,
            or is too long.
        """
        return _parse(text)

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it holds for these values of the symbols. One that cannot be computed does not.

        Raises
        ------
        KeyError
            `sizes` lacks one of its symbols.
        """
        values = {name: sizes[name] for name in self.symbols}
        try:
            # The code consists of the nodes above: it has no names but these.
            return bool(eval(self._code, _NAMESPACE, values))
        except (ArithmeticError, ValueError, TypeError):
            return False


def first_broken(texts: Iterable[str], sizes: Mapping[str, int]) -> str | None:
    """The first of several conditions that does not hold for these sizes; None if all do."""
    return next((text for text in texts if not SizeGuard.parse(text).holds(sizes)), None)


def sizes_that_hold(
    texts: Iterable[str], ranges: Mapping[str, Range], start: Mapping[str, int]
) -> dict[str, int] | None:
    """Sizes in their ranges for which all conditions hold, searched from `start` upwards.

    None if none are found among some ten thousand for each group of symbols.
    """
    sizes = dict(start)
    for together in _connected([SizeGuard.parse(text) for text in texts]):
        tries = _search(together, ranges, sizes)
        found = next((s for s in tries if all(guard.holds(s) for guard in together)), None)
        if found is None:
            return None
        sizes = found
    return sizes


def sizes_that_break(
    text: str, ranges: Mapping[str, Range], start: Mapping[str, int]
) -> dict[str, int] | None:
    """Sizes in their ranges for which a condition does not hold; None if none are found."""
    guard = SizeGuard.parse(text)
    lowest = {name: max(ranges.get(name, (0, None))[0] or 0, 0) for name in guard.symbols}
    for begin in (dict(start), {**start, **lowest}):
        for sizes in _search([guard], ranges, begin):
            if not guard.holds(sizes):
                return sizes
    return None


def _connected(guards: Sequence[SizeGuard]) -> list[list[SizeGuard]]:
    """Groups of guards; no two groups have a symbol in common."""
    groups: list[tuple[frozenset[str], list[SizeGuard]]] = []
    for guard in guards:
        touched = [group for group in groups if group[0] & guard.symbols]
        symbols = guard.symbols.union(*(group[0] for group in touched))
        groups = [group for group in groups if group not in touched]
        groups.append((symbols, [g for group in touched for g in group[1]] + [guard]))
    return [group for _, group in groups]


def _search(
    guards: Iterable[SizeGuard], ranges: Mapping[str, Range], start: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    symbols = sorted({name for guard in guards for name in guard.symbols})
    each = int(_TRIES ** (1 / len(symbols))) if symbols else 1
    highest = {name: ranges.get(name, (None, None))[1] for name in symbols}
    steps = itertools.product(range(max(each, 2)), repeat=len(symbols))
    for step in itertools.islice(steps, _TRIES):
        sizes = {**start, **{n: start[n] + k for n, k in zip(symbols, step, strict=True)}}
        if all((high := highest[name]) is None or sizes[name] <= high for name in symbols):
            yield sizes


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> SizeGuard:
    if len(text) > _LONGEST:
        raise ValueError("a condition that is too long")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        nodes = list(ast.walk(tree))
        names = _names(tree)
        code = compile(tree, "<guard>", "eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a condition: {text:.200}") from error
    if len(nodes) > _MOST_NODES:
        raise ValueError("a condition that is too long")
    return SizeGuard(text, frozenset(names), code)


def _names(tree: ast.Expression) -> set[str]:
    """The symbols in a condition, whose functions are renamed to what no symbol is named."""
    functions = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name not in _FUNCTIONS or node.keywords:
                raise ValueError(f"a condition with the function {name:.40}")
            node.func = ast.copy_location(ast.Name(_function(name), ast.Load()), node.func)
            functions.add(node.func.id)
    names = set()
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise ValueError(f"a condition with {type(node).__name__}")
        if isinstance(node, ast.Constant) and type(node.value) not in (int, float, bool):
            raise ValueError(f"a condition with {node.value!r:.40}")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            power = node.right.value if isinstance(node.right, ast.Constant) else None
            if not isinstance(power, int | float) or abs(power) > _LARGEST_POWER:
                raise ValueError("a condition with a power that is not a small number")
        if isinstance(node, ast.Name):
            names.add(node.id)
    return names - functions


def _function(name: str) -> str:
    return f"function {name}"


_NAMESPACE: dict[str, Any] = {
    "__builtins__": {},
    **{_function(name): function for name, function in _FUNCTIONS.items()},
}
