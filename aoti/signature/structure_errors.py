"""Errors for arguments whose structure differs from the exported one."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from aoti.errors import InputError, InputTypeError

Key = str | int | float | bool | None

_MAX_SHOWN = 12


def wrong_call(
    wanted: int,
    positional: Sequence[str],
    names: Sequence[Key],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> InputError:
    """The error for a wrong number or wrong names of arguments."""
    by_keyword = positional[len(args) :]  # positional arguments that can also be passed by keyword
    everything = [*positional, *names]
    twice = [name for name in positional[: len(args)] if name in kwargs]
    names = [*by_keyword, *names]
    missing, unexpected, suggestion = _compare(names, kwargs)
    spread = len(args) == 1 and isinstance(args[0], tuple | list) and len(args[0]) == wanted
    if len(args) > wanted or (len(args) < wanted and (spread or not by_keyword)):
        hint = ""
        if spread:
            hint = f"; spread the {type(args[0]).__name__}: model(*values)"
        elif len(args) < wanted and unexpected:
            hint = "; the package has no names for positional arguments: pass "
            hint += f"{_listed(unexpected)} by position"
        elif len(args) > wanted and missing:
            hint = f"; pass {_listed(missing)} by keyword"
        arguments = "argument" if wanted == 1 else "arguments"
        return InputError(f"the model takes {wanted} positional {arguments}, got {len(args)}{hint}")
    if twice:
        arguments = "argument" if len(twice) == 1 else "arguments"
        return InputError(
            f"{arguments} {_listed(twice)} given by position and by keyword; "
            f"the model takes {_listed(everything)}"
        )
    problem, keys = ("unexpected", unexpected) if unexpected else ("missing", missing)
    arguments = "argument" if len(keys) == 1 else "arguments"
    arguments = arguments if by_keyword else f"keyword {arguments}"
    takes = f"the model takes {_listed(everything)}{suggestion}"
    return InputError(f"{problem} {arguments} {_listed(keys)}; {takes}")


def misfit(path: str, kind: str, keys: Sequence[Key], value: object) -> InputError:
    """The error for a value that is not the container that was exported."""
    expected = f"{path}: expected {_container(kind, keys)}"
    if kind == "dict" and issubclass(type(value), dict):
        missing, unexpected, suggestion = _compare(keys, plain(value))
        reasons = [f"{short(key)} is missing" for key in missing]
        reasons += [f"{short(key)} is unexpected" for key in unexpected]
        return InputError(f"{expected}; {', '.join(reasons[:_MAX_SHOWN])}{suggestion}")
    expected += f", got {described(value)}; pass"
    if type(value).__name__ == kind:
        return InputError(f"{expected} {len(keys)} items, as the model was exported")
    return InputTypeError(f"{expected} a {kind}, as the model was exported")


def _compare(wanted: Sequence[Key], given: dict[Any, Any]) -> tuple[list[Any], list[Any], str]:
    """Return the missing keys, the unexpected keys, and a suggestion for a misspelled one."""
    known = set(wanted)
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in known]
    close: list[str] = []
    if missing and unexpected:
        from difflib import get_close_matches  # only needed on the way to an error

        close = get_close_matches(str(unexpected[0]), map(str, missing), n=1)
    return missing, unexpected, f" (did you mean {short(close[0])}?)" if close else ""


def _listed(keys: Sequence[object]) -> str:
    shown = ", ".join(map(short, keys[:_MAX_SHOWN])) or "(none)"
    return shown if len(keys) <= _MAX_SHOWN else f"{shown}, ... ({len(keys)} in all)"


def short(value: object) -> str:
    """The repr of a value, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _container(kind: str, keys: Sequence[object]) -> str:
    if isinstance(keys, range):
        return f"a {kind} of {len(keys)}"
    return f"a {kind} with {'keys' if kind == 'dict' else 'fields'} {_listed(keys)}"


def plain(value: Any) -> dict[Any, object]:
    """The items of a dict, without methods that a subclass overrides."""
    return dict(dict.items(value))


def described(value: Any) -> str:
    """A description of a value: as a container, or by its type."""
    name, kind = type(value).__name__, type(value)
    if issubclass(kind, tuple) and isinstance(fields := getattr(kind, "_fields", None), tuple):
        return _container(f"namedtuple {name}", fields)
    for base in (tuple, list, deque):
        if issubclass(kind, base):
            return _container(name, range(base.__len__(value)))
    if issubclass(kind, dict):
        return _container("dict", tuple(plain(value)))
    return "None" if value is None else f"an object of type {name}"
