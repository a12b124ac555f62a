"""Programs whose weights are subclasses of tensors, as torchao's quantised ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from aoti.exporting.capture.containers import torch_at_ease
from aoti.exporting.passes.operators import stored

# Operators that the rest of the exporter knows.
_KNOWN = ("aten", "prims", "prim")
# Computes scales from all values of a row. Inductor would compute these again to quantise them.
_CHOOSES_SCALES = "torchao.choose_qparams_affine.default"


@torch_at_ease()
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
    table: dict[Any, Callable[..., Any]] = {}
    for op in called:
        if op.namespace not in _KNOWN and op in known:
            once = str(op) == _CHOOSES_SCALES
            table[op] = partial(_of_stored, known[op]) if once else known[op]
    plain: torch.export.ExportedProgram = program.run_decompositions(table)
    return plain


def _of_stored(decomposition: Callable[..., Any], x: Tensor, *arguments: Any, **more: Any) -> Any:
    scales, zero_points = decomposition(stored(x), *arguments, **more)
    return stored(scales), zero_points
