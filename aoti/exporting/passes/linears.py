"""A rewrite of linear layers: weights are stored in the order in which a product reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.graph_editing import Rewritten, arguments, copied, finished, replace
from aoti.exporting.passes.operators import (
    NARROW_STEPS,
    blocked_product,
    blocks_for,
    narrow_product,
    vector_block,
)

aten = torch.ops.aten

# What computes a linear layer: its input, its weight as (inputs, outputs), and what is added.
_LINEAR = aten.linear.default  # the weight is (outputs, inputs)
_OPERATORS: dict[Any, tuple[str, str, str | None]] = {
    _LINEAR: ("input", "weight", "bias"),
    aten.addmm.default: ("mat1", "mat2", "self"),
    aten.mm.default: ("self", "mat2", None),
    aten.matmul.default: ("self", "other", None),
    aten._int_mm.default: ("self", "mat2", None),
}
_TRANSPOSES = (aten.t.default, aten.permute.default, aten.transpose.int)
_ADD = aten.add.Tensor
_CONVERSIONS = (aten._to_copy.default, aten.to.dtype)
_WIDENED = (torch.float32, torch.bfloat16, torch.float16)  # what bytes are multiplied as
_DTYPES = (torch.float32, torch.bfloat16, torch.int8)  # of weights for which there is a kernel
_CONTIGUOUS = torch.contiguous_format


def block_linears(program: torch.export.ExportedProgram) -> Rewritten:
    """Store the weights of linear layers in blocks of columns, for our own kernel.

    Products with a weight of the program are linear layers, too.

    The kernel reads the blocks in the order in which they are stored, whatever the number of rows,
    and computes in the same pass what follows the product. As (outputs, inputs), weights are
    rearranged in every call, which takes about half of the time of a product with few rows.

    Where a kernel is lacking (weights of float64 or float16), they are stored as (inputs, outputs).
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
        _ease_conversion(node)
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
    return weight.dtype in _DTYPES and weight.device.type == "cpu" and weight.numel() > 0


def _weight(node: Node) -> Any:
    return arguments(node)[_OPERATORS[node.target][1]]


def _layers(program: torch.export.ExportedProgram) -> list[Node]:
    layers = (node for node in program.graph.nodes if node.target in _OPERATORS)
    own = _own_matrices(program)
    return [
        node
        for node in layers
        if _weight(node) in own
        and _is_plain(node)
        and (node.target != aten._int_mm.default or _has_kernel(_weight(node).meta["val"]))
    ]


def _own_matrices(program: torch.export.ExportedProgram) -> set[Node]:
    """The matrices among a program's parameters, their transposes, and floats made of bytes."""
    found: set[Node] = set()
    for node in program.graph.nodes:
        source = node.args[0] if node.target in _TRANSPOSES else _bytes_of(node)
        if source in found or (node.op == "placeholder" and are_own(program, [node])):
            found.add(node)
    return found


def _bytes_of(node: Node) -> Node | None:
    """The bytes that a node converts to floats."""
    if node.target not in _CONVERSIONS or node.meta["val"].dtype not in _WIDENED:
        return None
    source: Any = node.args[0]
    return source if source.meta["val"].dtype == torch.int8 else None


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
    """Input, weight and, if there is one, bias of a layer. The weight may be bytes."""
    called = arguments(node)
    values: list[Any] = [called[name] if name else None for name in _OPERATORS[node.target]]
    x, weight, bias = values
    if weight.meta["val"].dtype.is_floating_point:
        weight = _bytes_of(weight) or weight
    return [x, weight, *([] if bias is None else [bias])]


def _ease_conversion(layer: Node) -> None:
    """Add 128 to signed bytes as floats: at::vec converts integers to bytes one by one."""
    unsigned = arguments(layer)[_OPERATORS[layer.target][0]]
    added: Any = unsigned.args[0] if unsigned.target in _CONVERSIONS else None
    if unsigned.meta["val"].dtype != torch.uint8 or getattr(added, "target", None) != _ADD:
        return
    wide, number = added.args[:2]
    if number == 128 and wide.target in _CONVERSIONS and wide.meta["val"].dtype == torch.int32:
        (signed,) = wide.all_input_nodes
        if signed.meta["val"].dtype == torch.int8:
            replace(unsigned, _unsigned, [signed])


def _unsigned(x: Tensor) -> Tensor:
    return (x.to(torch.float32) + 128).to(torch.uint8)


def _turned(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A layer of which the weight is (inputs, outputs)."""
    return lambda x, weight, *bias: compute(x, weight.t(), *bias)


def _as_row(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x[None], weight, bias)[0]


def layer(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with its weights as a kernel reads them."""
    if weight.dtype == torch.int8 and not x.dtype.is_floating_point:
        return _of_bytes(x, weight)
    if weight.dtype in (torch.int8, torch.bfloat16) and _has_kernel(weight):
        return _in_vector_blocks(x, weight, bias)
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


def _of_bytes(x: Tensor, weight: Tensor) -> Tensor:
    if x.dtype == torch.uint8:
        return _narrow(x, weight)
    return _narrow(_unsigned(x), weight) - 128 * weight.sum(1, dtype=torch.int32)


def _in_vector_blocks(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = x.reshape(-1, weight.shape[1])
    product = _narrow(rows if weight.dtype == x.dtype else rows.to(torch.float32), weight)
    product = product.reshape(*x.shape[:-1], weight.shape[0])
    return (product if bias is None else product + bias).to(x.dtype)


def _narrow(x: Tensor, weight: Tensor) -> Tensor:
    outputs, inputs = weight.shape
    step, block = NARROW_STEPS[x.dtype], vector_block(outputs)
    whole = torch.nn.functional.pad(weight, (0, -inputs % step, 0, -outputs % block))
    blocks = whole.reshape(-1, block, whole.shape[1] // step, step).transpose(1, 2)
    if inputs % step:
        x = torch.nn.functional.pad(x, (0, -inputs % step))
    product: Tensor = narrow_product(x, blocks.clone(memory_format=_CONTIGUOUS))
    return product[:, :outputs]


def _with_bias(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None:
        return _before_bias(x, weight)
    product = torch.addmm(bias, x.reshape(-1, weight.shape[1]), _columns(weight))
    return product.reshape(*x.shape[:-1], weight.shape[0])


def _columns(weight: Tensor) -> Tensor:
    return weight.t().clone(memory_format=_CONTIGUOUS)
