"""A rewrite of linear layers: weights stored the way that a product reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.convolutions import CONVOLUTIONS, Rewritten
from aoti.exporting.graphs import arguments, copied, finished, replace

_LINEAR = torch.ops.aten.linear.default
# Weights of a layer whose arithmetic takes longer than the call of a library for it.
_LARGE = 1 << 16


def transpose_linears(program: torch.export.ExportedProgram) -> Rewritten:
    """Store the weights of linear layers as (inputs, outputs).

    As (outputs, inputs) they are rearranged in every call, which takes about half of the time of a
    product with few rows. For packages whose weights are frozen, with the Inductor option
    ``cpp.weight_prepack=False``: a call would otherwise transpose them, or oneDNN pack them anew.

    Left alone are models without a large layer, and those with convolutions: Inductor's own
    products, which that option turns off, are faster for what is small.

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
    layers = [node for node in program.graph.nodes if _is_layer(node)]
    if not any(_weight(node).meta["val"].numel() >= _LARGE for node in layers):
        return program, []
    if any(node.target in CONVOLUTIONS for node in program.graph.nodes):
        return program, []
    program = copied(program)
    count = 0
    for node in filter(_is_layer, list(program.graph_module.graph.nodes)):
        called = arguments(node)
        weight = called["weight"]
        tensors = [called["input"], weight, called["bias"]]
        replace(node, _by_columns, [tensor for tensor in tensors if tensor is not None])
        count += 1
    return finished(program), [f"{count} with transposed weights"] if count else []


def _weight(node: Node) -> Any:
    return arguments(node)["weight"]


def _is_layer(node: Node) -> bool:
    if node.target != _LINEAR:
        return False
    weight = _weight(node)
    return bool(weight.op == "placeholder" and weight.meta["val"].dim() == 2)


def _by_columns(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    columns = weight.t().clone(memory_format=torch.contiguous_format)
    rows = x.reshape(-1, weight.shape[1])
    product = rows @ columns if bias is None else torch.addmm(bias, rows, columns)
    return product.reshape(*x.shape[:-1], weight.shape[0])
