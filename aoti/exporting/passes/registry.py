"""Rewrites of the exported graph before it is compiled, each with a name and a switch.

A pass takes an exported program. It returns a program that computes the same, and a report for
people. Passes rearrange weights in the graph: freezing computes that once, at the export. Presets
list their passes in order; `aoti.export(..., passes=...)` selects others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from aoti.errors import ConfigError
from aoti.exporting.error_messages import attempt
from aoti.exporting.passes.cells import open_cells
from aoti.exporting.passes.convolutions import fold_batch_norms, rewrite_convolutions
from aoti.exporting.passes.graph_editing import Rewritten
from aoti.exporting.passes.linears import block_linears

PASSES: Mapping[str, Callable[[torch.export.ExportedProgram], Rewritten]] = {
    "batch-norms": fold_batch_norms,
    "convolutions": rewrite_convolutions,
    "cells": open_cells,
    "linears": block_linears,
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
    program: torch.export.ExportedProgram, names: Sequence[str], *, frozen: bool
) -> Rewritten:
    """Apply passes in the given order.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.
    names : sequence of str
        The passes.
    frozen : bool
        Whether the package will have frozen weights. If not, nothing is rewritten: every call would
        compute the new weights.

    Returns
    -------
    program : torch.export.ExportedProgram
        The program to compile.
    report : list of str
        The rewrites, one line each, starting with the name of the pass; and a line for each pass
        that failed and is left out.

    Raises
    ------
    ExportError
        A pass failed because the machine has no compiler, or because the disk is full.
    """
    report: list[str] = []
    for name in names:
        unchanged: Rewritten = program, []
        done, lines = attempt(
            f"the pass {name!r}", partial(PASSES[name], program), unchanged, report
        )
        if frozen:
            program = done
        elif lines:
            lines = ["not rewritten: without freezing, every call would compute the new weights"]
        report += [f"{name}: {line}" for line in lines]
    return program, report
