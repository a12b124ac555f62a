"""Rewrites of the exported graph before it is compiled, each with a name and a switch.

A pass takes an exported program and Inductor's options for it. It returns a program that computes
the same, a report for people, and the options that the rewrite needs. Presets list their passes in
order; `aoti.export(..., passes=...)` selects others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from aoti.errors import ConfigError
from aoti.exporting.error_messages import attempt
from aoti.exporting.passes.convolutions import fold_batch_norms, rewrite_convolutions
from aoti.exporting.passes.layer_benchmark import measure
from aoti.exporting.passes.linears import transpose_linears

Say = Callable[[str], None]
_Result = tuple[torch.export.ExportedProgram, Sequence[str], Mapping[str, Any]]
Pass = Callable[[torch.export.ExportedProgram, Mapping[str, Any], Say], _Result]


_THAWED = "not rewritten: without freezing, every call would compute the new weights"


def _batch_norms(program: torch.export.ExportedProgram, options: Mapping[str, Any], _: Say) -> Any:
    folded, lines = fold_batch_norms(program)
    if lines and not options.get("freezing"):
        return program, [_THAWED], {}
    return folded, lines, {}


def _convolutions(
    program: torch.export.ExportedProgram, options: Mapping[str, Any], say: Say
) -> Any:
    return *rewrite_convolutions(program, partial(measure, options=options, say=say)), {}


def _linears(program: torch.export.ExportedProgram, options: Mapping[str, Any], _: Say) -> Any:
    rewritten, lines = transpose_linears(program)
    if not lines:
        return program, [], {}
    if not options.get("freezing"):
        return program, [_THAWED], {}
    # Inductor would pass the layers to oneDNN in another layout; and nothing is left to tune.
    return rewritten, lines, {"cpp.weight_prepack": False, "max_autotune": False}


PASSES: Mapping[str, Pass] = {
    "batch-norms": _batch_norms,
    "convolutions": _convolutions,
    "linears": _linears,
}


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that is not the name of a pass.

    Raises
    ------
    ConfigError
        The message lists the valid names.
    """
    for name in names:
        if name not in PASSES:
            raise ConfigError(f"no pass {name!r}: there are {', '.join(PASSES) or 'none'}")


def rewrite(
    program: torch.export.ExportedProgram,
    names: Sequence[str],
    options: Mapping[str, Any],
    say: Say = lambda _: None,
) -> tuple[torch.export.ExportedProgram, list[str], dict[str, Any]]:
    """Apply passes in the given order, for a package that is compiled with these options.

    Returns
    -------
    program : torch.export.ExportedProgram
        The program to compile.
    report : list of str
        The rewrites, one line each, starting with the name of the pass; and a line for each pass
        that failed and is left out.
    options : dict
        The options that the rewrites need.

    Raises
    ------
    ExportError
        A pass failed because the machine has no compiler, or because the disk is full.
    """
    report: list[str] = []
    asked: dict[str, Any] = {}
    for name in names:
        work = partial(PASSES[name], program, {**options, **asked}, say)
        unchanged: _Result = program, (), {}
        program, lines, more = attempt(f"the pass {name!r}", work, unchanged, report)
        report += [f"{name}: {line}" for line in lines]
        asked |= more
    return program, report, asked
