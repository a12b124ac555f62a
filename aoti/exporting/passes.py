"""Rewrites of the exported graph before it is compiled, each with a name and a switch.

A pass takes an exported program and Inductor's options for it, and gives one that computes the same
and what it rewrote, in lines for people. Presets name the passes that they want, in their order;
`aoti.export(..., passes=...)` names others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from aoti.errors import ConfigError
from aoti.exporting.convolutions import fold_batch_norms, rewrite_convolutions
from aoti.exporting.failures import cause, explain
from aoti.exporting.layertimes import measure
from aoti.exporting.linears import transpose_linears

Pass = Callable[
    [torch.export.ExportedProgram, Mapping[str, Any]],
    tuple[torch.export.ExportedProgram, Sequence[str]],
]

PASSES: Mapping[str, Pass] = {
    "batch-norms": lambda program, _: fold_batch_norms(program),
    "convolutions": lambda program, options: rewrite_convolutions(
        program, partial(measure, options=options)
    ),
    "linears": lambda program, _: transpose_linears(program),
}


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that no pass has.

    Raises
    ------
    ConfigError
        With the names that there are.
    """
    for name in names:
        if name not in PASSES:
            raise ConfigError(f"no pass {name!r}: there are {', '.join(PASSES) or 'none'}")


def rewrite(
    program: torch.export.ExportedProgram, names: Sequence[str], options: Mapping[str, Any]
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """Apply passes in the given order, for a package that is compiled with these options.

    Returns
    -------
    program : torch.export.ExportedProgram
        What to compile.
    report : list of str
        What was rewritten, a line each, headed by the name of its pass.

    Raises
    ------
    ExportError
        A pass failed.
    """
    report: list[str] = []
    for name in names:
        try:
            program, lines = PASSES[name](program, options)
        except (ArithmeticError, RuntimeError) as error:
            raise explain(error, f"apply the pass {name!r}") from cause(error)
        report += [f"{name}: {line}" for line in lines]
    return program, report
