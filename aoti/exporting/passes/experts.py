"""Products of rows with the weights of their experts, in models of transformers.

transformers calls its own operator for these products. A package with that operator needs
transformers in the process that runs the package.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.graph_editing import arguments, copied, finished, replace
from aoti.exporting.passes.operators import NAMESPACE, block_of

_THEIRS = "transformers::grouped_mm_fallback"


@torch.library.custom_op(f"{NAMESPACE}::grouped_product", mutates_args=())
def grouped_product(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Matrix products of groups of rows, each with its own weights, stored in blocks of columns.

    Parameters
    ----------
    x : Tensor
        (rows, inputs), the rows sorted by group.
    weight : Tensor
        (groups, blocks, inputs, columns of a block).
    ends : Tensor
        For each group, the number of rows up to its end.

    Returns
    -------
    Tensor
        (rows, blocks times columns of a block). Rows behind the last group are zeros.
    """
    result = x.new_zeros(x.shape[0], weight.shape[1] * weight.shape[3])
    start = 0
    for group, end in enumerate(ends.tolist()):
        result[start:end] = x[start:end] @ weight[group].permute(1, 0, 2).flatten(1)
        start = end
    return result


@grouped_product.register_fake
def _(x: Tensor, weight: Tensor, _: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1] * weight.shape[3])


def without_transformers(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Replace the operator of transformers by ours, in float32 on the CPU.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    torch.export.ExportedProgram
        A program with the same weights; `program` itself if it does not call the operator.
    """
    if not any(map(_is_theirs, program.graph.nodes)):
        return program
    program = copied(program)
    for node in filter(_is_theirs, list(program.graph_module.graph.nodes)):
        called = arguments(node)
        replace(node, _product, [called["input"], called["weight"], called["offs"]])
    return finished(program)


def _is_theirs(node: Node) -> bool:
    if getattr(node.target, "name", lambda: "")() != _THEIRS:
        return False
    weight = arguments(node)["weight"].meta["val"]
    return bool(weight.dtype == torch.float32 and weight.device.type == "cpu")


def _product(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    groups, inputs, outputs = weight.shape
    blocks = weight.reshape(groups, inputs, -1, block_of(outputs) or outputs)
    blocks = blocks.permute(0, 2, 1, 3).clone(memory_format=torch.contiguous_format)
    result: Tensor = grouped_product(x, blocks, ends)
    return result
