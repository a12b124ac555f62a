"""Symbolic sizes and strides as the compiler writes them: polynomials such as ``2*s27 + 1``."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping

# By the symbols of each term, sorted and repeated for powers, its coefficient, which is not 0:
# ``2*s27*s27 + 1`` is ``{("s27", "s27"): 2, (): 1}``. Equal expressions have equal polynomials,
# however they are written.
Polynomial = Mapping[tuple[str, ...], int]

_WORDS = re.compile(r"(?:\b\d{1,18}\b|\b[A-Za-z_]\w*\b|[-+*() ])+", re.ASCII)
_LONGEST = 200  # characters
_MOST_TERMS = 256  # more than any compiler writes; bounds the work on hostile texts
_LARGE = 1 << 48  # the core computes with 64 bits


@functools.lru_cache(maxsize=1024)
def polynomial(expression: str) -> Polynomial | None:
    """The canonical form of an expression; None for a text that is not an expression."""
    if len(expression) > _LONGEST or not _WORDS.fullmatch(expression):
        return None
    try:
        return _read(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def symbol(name: str) -> Polynomial:
    """The polynomial of a name alone, which may be any text."""
    return {(name,): 1}


def constant(number: int) -> Polynomial:
    """The polynomial of a number."""
    return {(): number} if number else {}


def product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    """The product of two polynomials; None if it has too many terms."""
    found: dict[tuple[str, ...], int] = {}
    for left, times in a.items():
        for right, more in b.items():
            term = tuple(sorted(left + right))
            found[term] = found.get(term, 0) + times * more
    found = {term: factor for term, factor in found.items() if factor}
    return found if len(found) <= _MOST_TERMS else None


@functools.lru_cache(maxsize=1024)
def affine(expression: str) -> tuple[str, int, int] | None:
    """The expression as ``scale * symbol + offset``: ``(symbol, scale, offset)``.

    None if it does not have that form, contains numbers that no size has, or is not an expression.
    """
    terms = polynomial(expression) or {}
    symbols = terms.keys() - {()}
    if len(symbols) != 1:
        return None
    (term,) = symbols
    scale, offset = terms[term], terms.get((), 0)
    small = abs(scale) < _LARGE and abs(offset) < _LARGE
    return (term[0], scale, offset) if len(term) == 1 and small else None


def symbols_of(expression: str) -> set[str]:
    """The symbols in an expression; none for a text that is not an expression."""
    return {name for term in polynomial(expression) or () for name in term}


def _read(node: ast.expr) -> Polynomial:
    match node:
        case ast.Constant(int(number)):
            return constant(int(number))
        case ast.Name(name):
            return symbol(name)
        case ast.UnaryOp(ast.USub(), operand):
            return _sum({}, _read(operand), -1)
        case ast.BinOp(left, ast.Add(), right):
            return _sum(_read(left), _read(right), 1)
        case ast.BinOp(left, ast.Sub(), right):
            return _sum(_read(left), _read(right), -1)
        case ast.BinOp(left, ast.Mult(), right):
            found = product(_read(left), _read(right))
            if found is None:
                raise ValueError("too many terms")
            return found
    raise ValueError("not a sum of products")


def _sum(a: Polynomial, b: Polynomial, sign: int) -> Polynomial:
    found = dict(a)
    for term, factor in b.items():
        found[term] = found.get(term, 0) + sign * factor
    return {term: factor for term, factor in found.items() if factor}
