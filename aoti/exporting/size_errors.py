"""Errors of torch about dynamic sizes that a module does not accept, told with their names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.printers import PythonPrinter

from aoti.exporting.places import Place, current_place

_NOT_ALL = re.compile(
    r"Not all values of (\S+) = \S+(?: in the specified range(?: (.*?))?)? "
    r"satisfy the generated guard (.*?)\.?(?:Specializations .*)?$"
)
_RELATED = re.compile(r"The values of (\S+) = .* must always be (?:related to .* by|equal)\b.*\.$")
_FIXED = re.compile(
    r"You marked (\S+) as dynamic but your code specialized it to be a constant \((\d+)\)"
    r"|solving the guards generated for (\S+) .* resulted in a specialized value of (\d+)"
)
_NO_BOUND = re.compile(r" and \S+ <= IntInfinity\(\)")
_FIX = re.compile(r"(\w+) = (.+)")
_DIM = re.compile(r"Dim\('\w+'(?:, min=(\d+))?(?:, max=(\d+|oo|int_oo))?\)")


@contextlib.contextmanager
def located_guards() -> Iterator[None]:
    """Let torch record the user's line with each condition on sizes, instead of its own line."""
    original = ShapeEnv._get_sloc

    def located(self: ShapeEnv, framework_loc: str | None = None) -> Any:
        return original(self, framework_loc or current_place())

    ShapeEnv._get_sloc = located  # type: ignore[method-assign]
    try:
        yield
    finally:
        ShapeEnv._get_sloc = original  # type: ignore[method-assign]


def is_unproven(said: str) -> bool:
    """Whether torch refused a module because not all sizes seem to meet some condition."""
    lines = said.splitlines()
    return any(map(_NOT_ALL.search, lines)) and not any(map(_FIXED.search, lines))


def explain_sizes(said: str, error: BaseException | None = None) -> tuple[str, str, str] | None:
    """What is wrong with the dynamic sizes, what to do, and the place in the user's code.

    None for messages about something else. The place may be empty, and is without the error.
    """
    text, _, suggested = said.partition("Suggested fixes:")
    forms, ranges = _fixes(suggested.partition("\n\n")[0])
    lines = text.splitlines()
    if fixed := next(filter(None, map(_FIXED.search, lines)), None):
        name = fixed[1] or fixed[3]
        return (
            f"size {name!r} cannot change: the module fixes it at {fixed[2] or fixed[4]}",
            "do not declare it as dynamic, or find what fixes it: an example of size 0 or 1, a "
            "constant in the code, or another input that must have the same size but does not "
            "name it",
            _place(error, name, ""),
        )
    violations = [m for line in lines if (m := _NOT_ALL.search(line) or _RELATED.search(line))]
    related = {m[1]: forms[m[1]] for m in violations if m[1] in forms}
    if related:
        what = ", ".join(f"{name!r} must be {form}" for name, form in related.items())
        return f"size {what}", _declaration(forms, ranges), _place(error, next(iter(related)), "")
    for match in violations:
        if match.re is _NOT_ALL:
            name, span, guard = match.groups()
            guard = _NO_BOUND.sub("", guard)
            return (
                f"the module does not accept the whole range of size {name!r}"
                f"{f' ({span})' if span else ''}, only sizes with {_readable(guard)}",
                _narrower(ranges),
                _place(error, name, guard),
            )
    return None


def _fixes(suggested: str) -> tuple[dict[str, str], dict[str, tuple[str | None, str | None]]]:
    """What torch suggests: sizes that are computed from others, and ranges."""
    forms, ranges = {}, {}
    for line in suggested.splitlines():
        match = _FIX.fullmatch(line.strip())
        if match is None or match[2].isdigit():
            continue
        if dim := _DIM.fullmatch(match[2]):
            high = dim[2] if (dim[2] or "oo").isdigit() else None
            ranges[match[1]] = (dim[1], high)
        else:
            forms[match[1]] = match[2].replace(" ", "")
    return forms, ranges


def _declaration(
    forms: Mapping[str, str], ranges: Mapping[str, tuple[str | None, str | None]]
) -> str:
    roots = {name: f"{low or 2}..{high or ''}" for name, (low, high) in ranges.items()}
    dims = {**forms, **roots}  # torch leaves out the bound 2, from which it traces
    typed = " ".join(f"--dim {name}={value}" for name, value in dims.items())
    return f"declare that: dims={dims}, or on the command line {typed}"


def _narrower(ranges: Mapping[str, tuple[str | None, str | None]]) -> str:
    if not ranges:
        return (
            "give it a range in which that always holds; or use torch.export.Dim.AUTO in place of "
            "the name, and each call is checked"
        )
    return "narrow the range: " + ", ".join(
        f"{name} {_span(low, high)}" for name, (low, high) in ranges.items()
    )


def _span(low: str | None, high: str | None) -> str:
    if low and high:
        return f"in {low}..{high}"
    return f"at least {low}" if low else f"at most {high}"


def _readable(guard: str) -> str:
    """``L['x'].size()[0]`` as the user's code has it: ``x.shape[0]``."""
    return re.sub(r"L\['(\w+)'\]", r"\1", guard).replace(".size()[", ".shape[")


def _place(error: BaseException | None, name: str, text: str) -> str:
    """The place of the condition that torch reports about the size with this name."""
    for env in _environments(error):
        known = env.source_name_to_debug_name
        names = {str(s): found[0].name for s, found in env.var_to_sources.items() if found}
        symbols = {s for s, source in names.items() if known.get(source, source) == name}
        places = {
            _over_sources(guard.expr, names): guard.sloc.framework_loc
            for guard in env.guards
            if isinstance(guard.sloc.framework_loc, Place)
            and symbols & set(map(str, guard.expr.free_symbols))
        }
        if places:
            return str(places.get(text) or next(iter(places.values())))
    return ""


def _over_sources(condition: Any, names: Mapping[str, str]) -> str:
    """A condition as torch's messages contain it: over ``L['x'].size()[0]``."""
    written = PythonPrinter().doprint(condition)
    return re.sub(r"\b\w+\b", lambda match: names.get(match[0], match[0]), written)


def _environments(error: BaseException | None) -> Iterator[ShapeEnv]:
    """The conditions that torch has collected: its errors contain only a part of them."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            env = trace.tb_frame.f_locals.get("shape_env")
            if isinstance(env, ShapeEnv):
                yield env
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
