"""Programs whose weights are subclasses of tensors, as torchao's quantised ones."""

from __future__ import annotations

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

# Operators that the rest of the exporter knows.
_KNOWN = ("aten", "prims", "prim")


def with_plain_weights(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Replace weights that are subclasses of tensors by the plain tensors that they hold.

    Operators of the library that defines the subclass are replaced by what they are made of, so
    that the program can be saved, and compiled in a process without that library.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    torch.export.ExportedProgram
        `program` itself if all of its weights are plain.
    """
    weights = (*program.state_dict.values(), *program.constants.values())
    if not any(map(is_traceable_wrapper_subclass, weights)):
        return program
    known = torch.export.default_decompositions()
    called = {node.target for node in program.graph.nodes if isinstance(node.target, OpOverload)}
    foreign = [op for op in called if op.namespace not in _KNOWN and op in known]
    plain: torch.export.ExportedProgram = program.run_decompositions(
        {op: known[op] for op in foreign}
    )
    return plain
