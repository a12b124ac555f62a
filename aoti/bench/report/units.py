"""Numbers for people: three digits and a unit."""

from __future__ import annotations


def duration(milliseconds: float) -> str:
    """Format a duration: ``2.13 µs``, ``41.7 ms`` or ``1.18 s``."""
    if milliseconds < 0.9995:
        return f"{digits(milliseconds * 1e3)} µs"
    if milliseconds < 999.5:
        return f"{digits(milliseconds)} ms"
    return f"{digits(milliseconds / 1e3)} s"


def megabytes(number: int) -> str:
    """Format a size: ``146 MB``."""
    return f"{digits(number / 1e6)} MB"


def digits(value: float) -> str:
    """Format a number with three digits, or all digits before the point: ``2.13``, ``170,100``."""
    places = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{places}f}"


def error(value: float | None) -> str:
    """Format a difference: ``3e-08``; ``?`` if it is not a number."""
    return "?" if value is None else f"{value:.1g}"
