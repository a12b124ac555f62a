"""A rewrite of linear layers: weights are stored in the order in which a product reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.graph_editing import Rewritten, arguments, copied, finished, replace
from aoti.exporting.passes.operators import blocked_product, blocks_for

aten = torch.ops.aten

# What computes a linear layer: its input, its weight as (inputs, outputs), and what is added.
_LINEAR = aten.linear.default  # the weight is (outputs, inputs)
_OPERATORS: dict[Any, tuple[str, str, str | None]] = {
    _LINEAR: ("input", "weight", "bias"),
    aten.addmm.default: ("mat1", "mat2", "self"),
    aten.mm.default: ("self", "mat2", None),
    aten.matmul.default: ("self", "other", None),
}
_CONTIGUOUS = torch.contiguous_format


def block_linears(program: torch.export.ExportedProgram) -> Rewritten:
    """Store the weights of linear layers in blocks of columns, for our own kernel.

    Products with a weight of the program are linear layers, too.

    The kernel reads the blocks in the order in which they are stored, whatever the number of rows,
    and computes in the same pass what follows the product. As (outputs, inputs), weights are
    rearranged in every call, which takes about half of the time of a product with few rows.

    Where a kernel is lacking (weights that are not float32), they are stored as (inputs, outputs).
    A bias is added by the elementwise code that follows; or by the product if layers share their
    input, since Inductor can then merge the products.

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
        if not _has_kernel(_weight(node).meta["val"])
        and sum(user in layers for user in _tensors(node)[0].users) > 1
    }
    for node in layers:
        compute = _with_bias if node in shared else layer
        replace(node, compute if node.target == _LINEAR else _turned(compute), _tensors(node))
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


def _has_kernel(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.numel() > 0


def _weight(node: Node) -> Any:
    return arguments(node)[_OPERATORS[node.target][1]]


def _layers(program: torch.export.ExportedProgram) -> list[Node]:
    layers = (node for node in program.graph.nodes if node.target in _OPERATORS)
    return [node for node in layers if are_own(program, [_weight(node)]) and _is_plain(node)]


def _is_plain(node: Node) -> bool:
    """Whether neither the product nor what is added to it is scaled."""
    called = arguments(node)
    return bool(called.get("alpha", 1) == called.get("beta", 1) == 1)


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
    names = _OPERATORS[node.target]
    return [called[name] for name in names if name and called[name] is not None]


def _turned(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A layer of which the weight is (inputs, outputs)."""
    return lambda x, weight, *bias: compute(x, weight.t(), *bias)


def _as_row(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x[None], weight, bias)[0]


def layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with its weights as a kernel reads them."""
    if _has_kernel(weight):
        return _in_blocks(x, weight, bias)
    if weight.dtype.itemsize < 4:  # two steps would round twice
        return _with_bias(x, weight, bias)
    return _before_bias(x, weight, bias)


def _before_bias(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = x.reshape(-1, weight.shape[1]) @ _columns(weight)
    product = product.reshape(*x.shape[:-1], weight.shape[0])
    return product if bias is None else product + bias


def _in_blocks(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    outputs, inputs = weight.shape
    count, width = blocks_for(outputs)
    if count * width > outputs:
        weight = torch.nn.functional.pad(weight, (0, 0, 0, count * width - outputs))
    blocks = weight.reshape(count, width, inputs).transpose(1, 2)
    product: Tensor = blocked_product(
        x.reshape(-1, inputs), blocks.clone(memory_format=_CONTIGUOUS)
    )
    if count * width > outputs:
        product = product[:, :outputs]
    product = product.reshape(*x.shape[:-1], outputs)
    return product if bias is None else product + bias


def _with_bias(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None:
        return _before_bias(x, weight)
    product = torch.addmm(bias, x.reshape(-1, weight.shape[1]), _columns(weight))
    return product.reshape(*x.shape[:-1], weight.shape[0])


def _columns(weight: Tensor) -> Tensor:
    return weight.t().clone(memory_format=_CONTIGUOUS)
