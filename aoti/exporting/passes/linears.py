"""A rewrite of linear layers: weights are stored in the order in which a product reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.graph_editing import Rewritten, arguments, copied, finished, replace
from aoti.exporting.passes.operators import block_of, blocked_product

_LINEAR = torch.ops.aten.linear.default
_CONTIGUOUS = torch.contiguous_format


def block_linears(program: torch.export.ExportedProgram) -> Rewritten:
    """Store the weights of linear layers in blocks of columns, for our own kernel.

    The kernel reads the blocks in the order in which they are stored, whatever the number of rows,
    and computes in the same pass what follows the product. As (outputs, inputs), weights are
    rearranged in every call, which takes about half of the time of a product with few rows.

    Where a kernel is lacking (16-bit weights, many outputs of which blocks cannot be made), weights
    are stored as (inputs, outputs). A bias is added by the elementwise code that follows; or by the
    product if layers share their input, since Inductor can then merge the products.

    This needs frozen weights, or a call would rearrange the weights.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    program : torch.export.ExportedProgram
        A program with the same weights, which computes the rearranged weights in its graph;
        `program` itself if there is no linear layer.
    report : list of str
        One line, if there is any.
    """
    if not _layers(program):
        return program, []
    program = copied(program)
    layers = _layers(program)
    shared = {
        node
        for node in layers
        if _block(_weight(node).meta["val"]) is None
        and sum(user in layers for user in arguments(node)["input"].users) > 1
    }
    for node in layers:
        replace(node, _with_bias if node in shared else layer, _tensors(node))
    return finished(program), [f"{len(layers)} with weights in blocks"]


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


def _block(weight: Tensor) -> int | None:
    """The number of columns of a block of weights, if there is a kernel."""
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or not weight.numel():
        return None
    return block_of(weight.shape[0])


def _weight(node: Node) -> Any:
    return arguments(node)["weight"]


def _layers(program: torch.export.ExportedProgram) -> list[Node]:
    layers = (node for node in program.graph.nodes if node.target == _LINEAR)
    return [node for node in layers if are_own(program, [_weight(node)])]


def are_own(program: torch.export.ExportedProgram, weights: Sequence[Node]) -> bool:
    """Whether matrices are parameters of a program, neither computed nor passed to calls."""
    given = program.graph_signature.user_inputs
    return all(
        weight.op == "placeholder" and weight.name not in given and weight.meta["val"].dim() == 2
        for weight in weights
    )


def _tensors(node: Node) -> list[Node]:
    """Input, weight and, if there is one, bias of a layer."""
    called = arguments(node)
    return [called[name] for name in ("input", "weight", "bias") if called[name] is not None]


def _as_row(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x[None], weight, bias)[0]


def layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with its weights as a kernel reads them."""
    width = _block(weight)
    if width:
        return _in_blocks(width, x, weight, bias)
    if weight.dtype.itemsize < 4:  # two steps would round twice
        return _with_bias(x, weight, bias)
    return _before_bias(x, weight, bias)


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
