"""A rewrite of linear layers: weights stored the way that a product reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from aoti.exporting.convolutions import Rewritten
from aoti.exporting.graphs import arguments, copied, finished, replace

_LINEAR = torch.ops.aten.linear.default


def transpose_linears(program: torch.export.ExportedProgram) -> Rewritten:
    """Store the weights of linear layers as (inputs, outputs).

    As (outputs, inputs) they are rearranged in every call, which takes about half of the time of a
    product with few rows. For packages whose weights are frozen, with the Inductor option
    ``cpp.weight_prepack=False``: a call would otherwise transpose them, or oneDNN pack them anew.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        Is left as it is.

    Returns
    -------
    program : torch.export.ExportedProgram
        With the same weights, and transposed ones computed from them in its graph.
    report : list of str
        One line, if there was anything to transpose.
    """
    program = copied(program)
    count = 0
    for node in list(program.graph_module.graph.nodes):
        if node.target != _LINEAR:
            continue
        called = arguments(node)
        weight = called["weight"]
        if weight.op != "placeholder" or weight.meta["val"].dim() != 2:
            continue
        tensors = [called["input"], weight, called["bias"]]
        replace(node, _by_columns, [tensor for tensor in tensors if tensor is not None])
        count += 1
    return finished(program), [f"{count} with transposed weights"] if count else []


def _by_columns(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    columns = weight.t().clone(memory_format=torch.contiguous_format)
    rows = x.reshape(-1, weight.shape[1])
    product = rows @ columns if bias is None else torch.addmm(bias, rows, columns)
    return product.reshape(*x.shape[:-1], weight.shape[0])
