"""Rewrites of the exported graph before it is compiled, each with a name and a switch.

A pass takes an exported program and gives one that computes the same, and says what it rewrote.
Presets name the passes that they want; `aoti.export(..., passes=...)` names others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from aoti.errors import ConfigError

# What was rewritten is told in lines for people, one per place in the graph.
Pass = Callable[[torch.export.ExportedProgram], tuple[torch.export.ExportedProgram, Sequence[str]]]

PASSES: Mapping[str, Pass] = {}


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
    program: torch.export.ExportedProgram, names: Sequence[str]
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """Apply passes in the given order.

    Returns
    -------
    program : torch.export.ExportedProgram
        What to compile.
    report : list of str
        What was rewritten, a line each, headed by the name of its pass.
    """
    report: list[str] = []
    for name in names:
        program, lines = PASSES[name](program)
        report += [f"{name}: {line}" for line in lines]
    return program, report
