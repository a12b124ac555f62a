"""Errors of torch during an export, in two lines: what is wrong and where, and how to fix it."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TypeVar

from aoti._logging import debugging
from aoti.errors import ExportError
from aoti.exporting.places import place_of
from aoti.exporting.size_errors import explain_sizes

T = TypeVar("T")
Words = Callable[[re.Match[str]], tuple[str, str]]


def _structure(match: re.Match[str]) -> tuple[str, str]:
    name = match[1].rpartition(".")[2]
    return (
        f"torch does not know how to flatten the type {name}, and no tensors are found in it",
        "use tensors, in tuples, lists, dicts, namedtuples or attributes of objects, and pass "
        "examples that have their tensors",
    )


def _explained(match: re.Match[str]) -> tuple[str, str]:
    """What torch's tracer explains itself, on the lines after the first one."""
    what, _, _ = match[1].partition(" Found in <")
    return what.strip().rstrip("."), match[2].strip().rstrip(".")


class MachineError(ExportError):
    """The cause is the machine, not the program: changing the program does not help."""


# The first rule that matches torch's message wins; the rules about the machine come first.
_RULES: tuple[tuple[str, Words], ...] = (
    (
        r"Data-dependent branching|Could not guard on data-dependent",
        lambda _: (
            "the code branches on the values of a tensor",
            "choose by torch.where or torch.cond, or by an argument that is not a tensor",
        ),
    ),
    (
        r"Could not extract specialized|data-dependent expression|\.item\(\)|tolist",
        lambda _: (
            "the code depends on a Python number taken out of a tensor",
            "keep it a tensor; if it is a size, declare its range with torch._check",
        ),
    ),
    (r"Found <class '([^']+)'> in output", _structure),
    (r"unrecognized type \w+\(([^)]*)\) at output", _structure),
    (r"(?:Unsupported input type|inputs with type) `?<class '([^']+)'>", _structure),
    (
        r"(\d+) not in range \[(\d+), (\d+|int_oo)\]",
        lambda match: (
            f"an example has size {match[1]}, outside of the range {match[2]}..{match[3]}",
            "pass examples with sizes inside the ranges, or widen the range",
        ),
    ),
    (
        r"on the same device, but found at least two devices, ([^!\n]+)",
        lambda match: (
            f"an operator gets tensors on different devices: {match[1]}",
            "move the module and the examples to one device, and create tensors in forward with "
            "device=x.device",
        ),
    ),
    (
        r"(When `dynamic_shapes` is specified as a dict[^.]*|Detected mismatch between the "
        r"structure of[^\n]*)",
        lambda match: (
            f"the dynamic shapes do not fit the arguments: {match[1]}",
            "pass one entry per argument, None if its sizes are fixed",
        ),
    ),
    (
        r"Must provide a tree_name when there might be a mismatch",
        lambda _: (
            "the dynamic shapes do not fit the arguments, or are those of **kwargs, which torch "
            "does not support",
            "pass one entry per argument, and name arguments of dynamic size in forward()",
        ),
    ),
    (
        r"^(missing a required argument|too many positional arguments|got an unexpected keyword)"
        r"([^\n]*)",
        lambda match: (
            f"the example arguments do not fit forward(): {match[1]}{match[2]}",
            "pass args and kwargs such that module(*args, **kwargs) works",
        ),
    ),
    (
        r"(\S+:\d+:\d+: (?:fatal )?error: [^\n]+)",
        lambda match: (
            f"the C++ compiler rejects the generated code: {match[1]}",
            "try another compiler (CXX), or options that generate other code: --set NAME=VALUE",
        ),
    ),
    (r"Explanation: ([^\n]+)\n(?s:.*?)Hint: ([^\n]+)", _explained),
)
_MACHINE_RULES: tuple[tuple[str, Words], ...] = (
    (
        r"InvalidCxxCompiler|No working C\+\+ compiler",
        lambda _: (
            "no C++ compiler was found on this machine",
            "install g++ (apt install g++), or set the environment variable CXX to a compiler",
        ),
    ),
    (
        r"No space left on device|Disk quota exceeded",
        lambda _: (
            "the disk is full",
            "free some space where the package goes, in TMPDIR and in TORCHINDUCTOR_CACHE_DIR",
        ),
    ),
)
_UNKNOWN = "set AOTI_DEBUG=1 to see the full messages of torch"


def explain(error: BaseException, doing: str) -> ExportError:
    """Describe a failure in two lines.

    Parameters
    ----------
    error : BaseException
        The error of torch.
    doing : str
        What was attempted: ``trace Net``.

    Returns
    -------
    ExportError
        Raise it ``from`` the result of `cause`.
    """
    if isinstance(error, ExportError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return explain_text("No space left on device", doing, "")
    sizes = explain_sizes(str(error), error)
    place = sizes[2] if sizes else place_of(error)
    return explain_text(f"{type(error).__name__}: {error}", doing, place)


def explain_text(said: str, doing: str, place: str) -> ExportError:
    """`explain` for a failure of which only the text is known: ``"TypeError: ..."``."""
    name, _, message = said.partition(": ")
    where = f" ({place})" if place else ""
    if (sizes := explain_sizes(message)) is not None:
        return ExportError(f"cannot {doing}: {sizes[0]}{where}\n{sizes[1]}")
    for rules, kind in ((_MACHINE_RULES, MachineError), (_RULES, ExportError)):
        for pattern, words in rules:
            match = re.search(pattern, said) or re.search(pattern, message)
            if match is not None:
                what, advice = words(match)
                return kind(f"cannot {doing}: {what}{where}\n{advice}")
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reason = (lines or ["no reason given"])[0]
    if reason.endswith(":") and len(lines) > 1:  # an introduction
        reason = f"{reason} {lines[1]}"
    return ExportError(f"cannot {doing}: {name}: {reason}{where}\n{_UNKNOWN}")


def attempt(what: str, work: Callable[[], T], otherwise: T, notes: list[str]) -> T:
    """Do what an export can do without: an estimate, or a rewrite that makes the package faster.

    Parameters
    ----------
    what : str
        What is done, for the note: ``the pass 'linears'``.
    work : callable
        Does it and returns the result.
    otherwise : object
        The result if that fails.
    notes : list of str
        If it fails, a note with the reason is added.

    Raises
    ------
    MachineError
        The disk is full, or the machine has no compiler. The export would fail, too.
    """
    try:
        return work()
    except Exception as error:  # of torch, or of the work on a program that it did not expect
        refusal = explain(error, f"apply {what}")
        if isinstance(refusal, MachineError):
            raise refusal from cause(error)
        notes.append(f"without {what}: {' '.join(str(error).split()) or type(error).__name__:.120}")
        return otherwise


def cause(error: BaseException) -> BaseException | None:
    """The cause to raise an explanation from: torch's error when debugging, else None."""
    return error if debugging() else None
