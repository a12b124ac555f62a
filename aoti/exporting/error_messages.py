"""What torch says when it cannot export, told in two lines: what is wrong and where, what to do."""

from __future__ import annotations

import errno
import os
import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from aoti._logging import debugging
from aoti.errors import ExportError

# Frames from below these are nobody's mistake.
_NOT_THE_USERS = tuple(
    f"{Path(path).resolve()}{os.sep}"
    for path in (
        *(torch.__path__[0], Path(__file__).parent),
        *(sysconfig.get_path("stdlib"), Path(__file__).parent.parent / "cli"),
    )
)
_FRAME_IN_TEXT = re.compile(r'File "([^"\n]+)", line (\d+), in ([^\s,]+)')

Words = Callable[[re.Match[str]], tuple[str, str]]


def _structure(match: re.Match[str]) -> tuple[str, str]:
    name = match[1].rpartition(".")[2]
    return (
        f"{name} is a type that torch cannot take apart",
        "use tensors in tuples, lists, dicts and namedtuples, or register a dataclass: "
        f"torch.export.register_dataclass({name})",
    )


def _too_wide(match: re.Match[str]) -> tuple[str, str]:
    return (
        f"the module cannot take the whole range of size {match[1]!r}: {match[2]}",
        f"give it the range that it can: {match[3].strip()}",
    )


def _fixed(match: re.Match[str]) -> tuple[str, str]:
    return (
        f"size {match[1]!r} cannot change: the module fixes it at {match[2]}",
        "do not name it as dynamic, or find what fixes it: an example of size 0 or 1, a constant "
        "in the code, or another input that must have the same size but has no name for it",
    )


class MachineError(ExportError):
    """What failed is the machine: nothing about the program would help."""


# In this order, and the machine's first: the first that is found in what torch says.
_RULES: tuple[tuple[str, Words], ...] = (
    (
        r"Data-dependent branching|Could not guard on data-dependent",
        lambda _: (
            "which way the code goes depends on what is in a tensor",
            "choose by torch.where or torch.cond, or by an argument that is no tensor",
        ),
    ),
    (
        r"Could not extract specialized|data-dependent expression|\.item\(\)|tolist",
        lambda _: (
            "a Python number is taken out of a tensor, and the code depends on it",
            "keep it a tensor; where it is a size, tell its range by torch._check",
        ),
    ),
    (r"Found <class '([^']+)'> in output", _structure),
    (r"unrecognized type \w+\(([^)]*)\) at output", _structure),
    (r"(?:Unsupported input type|inputs with type) `?<class '([^']+)'>", _structure),
    (
        r"Not all values of (\w+) = .* satisfy the generated guard (.*)\n(?s:.*)fixes:\n(.*)",
        _too_wide,
    ),
    (
        r"You marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)",
        _fixed,
    ),
    (
        r"(\d+) not in range \[(\d+), (\d+|int_oo)\]",
        lambda match: (
            f"an example has size {match[1]} where the range is {match[2]}..{match[3]}",
            "pass examples with sizes inside the ranges, or widen the range",
        ),
    ),
    (
        r"on the same device, but found at least two devices, ([^!\n]+)",
        lambda match: (
            f"tensors on different devices meet: {match[1]}",
            "move module and examples to one device, and make tensors in forward with "
            "device=x.device",
        ),
    ),
    (
        r"(When `dynamic_shapes` is specified as a dict[^.]*|Detected mismatch between the "
        r"structure of[^\n]*)",
        lambda match: (
            f"the dynamic shapes do not fit the arguments: {match[1]}",
            "give one entry per argument, None where nothing changes",
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
            f"the C++ compiler refuses the generated code: {match[1]}",
            "try another compiler (CXX), or options that generate other code: --set NAME=VALUE",
        ),
    ),
)
_MACHINE_RULES: tuple[tuple[str, Words], ...] = (
    (
        r"InvalidCxxCompiler|No working C\+\+ compiler",
        lambda _: (
            "there is no C++ compiler on this machine",
            "install g++ (apt install g++), or name one by the environment variable CXX",
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
_UNKNOWN = "AOTI_DEBUG=1 shows all that torch has to say"


def explain(error: BaseException, doing: str) -> ExportError:
    """Two lines about a failure.

    Parameters
    ----------
    error : BaseException
        What torch raised.
    doing : str
        What was tried: ``trace Net``.

    Returns
    -------
    ExportError
        To be raised ``from`` what `cause` gives.
    """
    if isinstance(error, ExportError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return explain_text("No space left on device", doing, "")
    return explain_text(f"{type(error).__name__}: {error}", doing, _place(error))


def explain_text(said: str, doing: str, place: str) -> ExportError:
    """The same, where only the text of the failure is known, its type's name before it."""
    name, _, message = said.partition(": ")
    where = f" ({place})" if place else ""
    for rules, kind in ((_MACHINE_RULES, MachineError), (_RULES, ExportError)):
        for pattern, words in rules:
            match = re.search(pattern, said) or re.search(pattern, message)
            if match is not None:
                what, advice = words(match)
                return kind(f"cannot {doing}: {what}{where}\n{advice}")
    lines = [line for line in message.splitlines() if line.strip()]
    return ExportError(
        f"cannot {doing}: {name}: {(lines or ['no reason given'])[0]}{where}\n{_UNKNOWN}"
    )


def cause(error: BaseException) -> BaseException | None:
    """What to raise an explanation from: torch's own error, if somebody wants to see it all."""
    return error if debugging() else None


def _place(error: BaseException) -> str:
    """The innermost line of the user's own code that an error came through."""
    frames = [
        (frame.filename, frame.lineno or 0, frame.name)
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    # The strict tracer has the user's frames in its text only.
    frames += [(m[1], int(m[2]), m[3]) for m in _FRAME_IN_TEXT.finditer(str(error))]
    for filename, line, name in reversed(frames):
        path = Path(filename)
        if path.is_file() and not str(path.resolve()).startswith(_NOT_THE_USERS):
            source = path.read_text(encoding="utf-8", errors="replace").splitlines()
            code = source[line - 1].strip() if 0 < line <= len(source) else ""
            return f"{path.name}:{line}, in {name}: {code}"[:200]
    return ""
