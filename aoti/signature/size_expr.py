"""Sizes and strides as the compiler writes them: sums of products over symbols, ``2*s27 + 1``."""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Callable

_WORDS = re.compile(r"(?:\b\d{1,18}\b|\b[A-Za-z_]\w*\b|[-+*() ])+", re.ASCII)
_SYMBOL = re.compile(r"[A-Za-z_]\w*")
_LARGE = 1 << 48  # the core computes with 64 bits


_CONSTANTS: tuple[Callable[[str], int], ...] = (
    lambda _: 0,
    lambda _: 1,
    lambda _: 2,
    lambda _: 3,
)


@functools.lru_cache(maxsize=1024)
def fingerprint(expression: str) -> int:
    """What an expression comes to if each symbol in it stands for a large number of its own.

    0 for a text that is no expression. Expressions of one value are equal, but for a chance of
    about 2**-60; that they may be written differently does not matter.
    """
    return _evaluate(expression, _large_number) or 0


@functools.lru_cache(maxsize=1024)
def affine(expression: str) -> tuple[str, int, int] | None:
    """The expression as ``scale * symbol + offset``: ``(symbol, scale, offset)``.

    None if it is none of that form, has numbers that no size has, or is no expression at all.
    """
    symbols = symbols_of(expression)
    if len(symbols) != 1:
        return None
    zero, one, two, three = (_evaluate(expression, constant) or 0 for constant in _CONSTANTS)
    scale = one - zero
    straight = two == zero + 2 * scale and three == zero + 3 * scale
    small = abs(scale) < _LARGE and abs(zero) < _LARGE
    return (symbols.pop(), scale, zero) if straight and small and scale else None


def symbols_of(expression: str) -> set[str]:
    """The symbols that an expression is over; none for a text that is no expression."""
    return set(_SYMBOL.findall(expression)) if fingerprint(expression) else set()


def _evaluate(expression: str, symbol: Callable[[str], int]) -> int | None:
    if len(expression) > 200 or not _WORDS.fullmatch(expression):
        return None
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body, symbol)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, symbol: Callable[[str], int]) -> int:
    match node:
        case ast.Constant(int(number)):
            return number
        case ast.Name(name):
            return symbol(name)
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand, symbol)
        case ast.BinOp(left, ast.Add(), right):
            return _value(left, symbol) + _value(right, symbol)
        case ast.BinOp(left, ast.Sub(), right):
            return _value(left, symbol) - _value(right, symbol)
        case ast.BinOp(left, ast.Mult(), right):
            return _value(left, symbol) * _value(right, symbol)
    raise ValueError("not a sum of products")


def _large_number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
