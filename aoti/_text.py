"""Parts of messages: text that may come from a file, and lists that may be long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MANY = 5  # names in a message


def printable(value: object) -> str:
    """The text of a value, with escapes in place of control characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def quoted(text: str) -> str:
    """Text from a file, for a message: short, and quoted if it is empty or not printable."""
    text = text if len(text) <= 60 else text[:60] + "..."
    return text if text.isprintable() and text else repr(text)


def listing(names: Sequence[str]) -> str:
    """The first names of a list that may be long, and how many more there are."""
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return ", ".join(map(quoted, names[:_MANY])) + more


def assignments(values: Mapping[str, object]) -> str:
    """Names and their values: ``batch=3, length=5``."""
    return ", ".join(f"{name}={value}" for name, value in values.items())
