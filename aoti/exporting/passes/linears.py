"""A rewrite of linear layers: weights are stored in the order in which a product reads them."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.convolutions import CONVOLUTIONS, Rewritten
from aoti.exporting.passes.graph_editing import arguments, copied, finished, hint, replace
from aoti.exporting.passes.operators import blocked_product

_LINEAR = torch.ops.aten.linear.default
_CONTIGUOUS = torch.contiguous_format
# Weights of a layer whose arithmetic takes longer than the call of a library function.
_LARGE = 1 << 16
# Up to this number of rows, a product waits for its weights more than it computes.
_FEW = 32
# Columns of a block of weights: as many as the kernels for few rows process at a time.
_WIDTHS = (48, 64, 32)


def transpose_linears(program: torch.export.ExportedProgram) -> Rewritten:
    """Store the weights of linear layers as (inputs, outputs).

    As (outputs, inputs) they are rearranged in every call, which takes about half of the time of a
    product with few rows. A bias is added by the elementwise code that follows; or by the product
    if layers share their input, since Inductor can then merge the products. This needs frozen
    weights and the Inductor option ``cpp.weight_prepack=False``: otherwise a call would transpose
    the weights, or oneDNN would pack them again.

    If large layers have few rows in the examples, weights are stored in blocks of columns, for our
    own kernel, which reads them in the order in which they are stored. With many rows it is slower.

    Models without a large layer and models with convolutions are not rewritten: Inductor's own
    products, which the option turns off, are faster for small layers.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    program : torch.export.ExportedProgram
        A program with the same weights, which computes the transposed weights in its graph;
        `program` itself if there was nothing to transpose.
    report : list of str
        One line, if there was anything to transpose.
    """
    layers = _layers(program)
    if not any(_weight(node).meta["val"].numel() >= _LARGE for node in layers):
        return program, []
    if any(node.target in CONVOLUTIONS for node in program.graph.nodes):
        return program, []
    few = _has_few_rows(program)
    program = copied(program)
    layers = _layers(program)
    shared = {n for n in layers if sum(user in layers for user in arguments(n)["input"].users) > 1}
    for node in layers:
        weight = _weight(node).meta["val"]
        width = _block(weight) if few else None
        if width:
            replace(node, partial(_in_blocks, width), _tensors(node))
        elif node in shared or weight.dtype.itemsize < 4:  # two steps would round twice
            replace(node, _with_bias, _tensors(node))
        else:
            replace(node, _before_bias, _tensors(node))
    limit = f", laid out for at most {_FEW} rows per call" if few else ""
    return finished(program), [f"{len(layers)} with transposed weights{limit}"]


def vectors_as_rows(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Turn the vectors of linear layers into matrices of one row: Inductor cannot freeze vectors.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    torch.export.ExportedProgram
        A program with the same weights; `program` itself if it does not have such a layer.
    """
    if not any(map(_takes_a_vector, program.graph.nodes)):
        return program
    program = copied(program)
    for node in filter(_takes_a_vector, list(program.graph.nodes)):
        replace(node, _as_row, _tensors(node))
    return finished(program)


def _takes_a_vector(node: Node) -> bool:
    return node.target == _LINEAR and arguments(node)["input"].meta["val"].dim() == 1


def _has_few_rows(program: torch.export.ExportedProgram) -> bool:
    """Whether the examples have so few rows that large layers wait for their weights."""
    for node in _layers(program):
        sizes = arguments(node)["input"].meta["val"].shape[:-1]
        rows = math.prod(hint(size) or math.inf for size in sizes)
        if rows > _FEW and _weight(node).meta["val"].numel() >= _LARGE:
            return False
    return True


def _block(weight: Tensor) -> int | None:
    """The number of columns of a block of weights, if a kernel supports it."""
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or not weight.numel():
        return None
    return next((width for width in _WIDTHS if weight.shape[0] % width == 0), None)


def _weight(node: Node) -> Any:
    return arguments(node)["weight"]


def _layers(program: torch.export.ExportedProgram) -> list[Node]:
    """The linear layers whose weights are parameters, neither computed nor passed to calls."""
    given = program.graph_signature.user_inputs
    layers = (node for node in program.graph.nodes if node.target == _LINEAR)
    return [node for node in layers if _is_own(_weight(node), given)]


def _is_own(weight: Node, given: Collection[Any]) -> bool:
    own = weight.op == "placeholder" and weight.name not in given
    return bool(own and weight.meta["val"].dim() == 2)


def _tensors(node: Node) -> list[Node]:
    """Input, weight and, if there is one, bias of a layer."""
    called = arguments(node)
    return [called[name] for name in ("input", "weight", "bias") if called[name] is not None]


def _as_row(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x[None], weight, bias)[0]


def _before_bias(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = x.reshape(-1, weight.shape[1]) @ _columns(weight)
    product = product.reshape(*x.shape[:-1], weight.shape[0])
    return product if bias is None else product + bias


def _in_blocks(width: int, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    outputs, inputs = weight.shape
    blocks = weight.view(-1, width, inputs).transpose(1, 2).clone(memory_format=_CONTIGUOUS)
    product: Tensor = blocked_product(x.reshape(-1, inputs), blocks)
    product = product.reshape(*x.shape[:-1], outputs)
    return product if bias is None else product + bias


def _with_bias(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None:
        return _before_bias(x, weight)
    product = torch.addmm(bias, x.reshape(-1, weight.shape[1]), _columns(weight))
    return product.reshape(*x.shape[:-1], weight.shape[0])


def _columns(weight: Tensor) -> Tensor:
    return weight.t().clone(memory_format=_CONTIGUOUS)
