"""Rewrites of convolutions: they become products or sums, and batch norms go into weights.

A package runs a convolution by calling libtorch's, whatever its size. As products with weights in
blocks, or as a sum for a depthwise convolution, it becomes generated code, which has the channels
innermost and computes what follows while the results are in the caches. All rewrites compute the
same up to the rounding of floats.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.graph_editing import (
    Rewritten,
    arguments,
    copied,
    finished,
    replace,
    reshape_views,
)
from aoti.exporting.passes.linears import layer as linear
from aoti.exporting.passes.operators import (
    block_of,
    convolution,
    depthwise,
    vector_block,
    windows,
    winograd,
    winograd_weight,
)

aten = torch.ops.aten

CONVOLUTIONS = (
    *(aten.conv1d.default, aten.conv1d.padding),
    *(aten.conv2d.default, aten.conv2d.padding),
    aten.convolution.default,
)
_CONTIGUOUS = torch.contiguous_format
_MOST_TERMS = 64  # of a sum: every place of the kernel is one
_FEW_CHANNELS = 8  # they do not fill a vector
# From here on, Winograd's algorithm saves more than its transforms take (pairs of channels), and
# than it takes to read weights that are 16/9 as large.
_MANY_CHANNELS, _MANY_POSITIONS = 32 * 32, 36


@dataclass(frozen=True)
class Layer:
    """A convolution over one or two sizes.

    Attributes
    ----------
    weight : tuple of int
        (output channels, channels / groups, *kernel).
    stride, dilation : tuple of int
        One per size.
    padding : tuple of (int, int)
        Zeros before and after, one pair per size.
    groups : int
        Number of groups of channels.
    positions : int
        Of the kernel: the elements of a channel of the result.
    """

    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    positions: int

    @property
    def depthwise(self) -> bool:
        """Whether each channel has its own kernel."""
        return self.groups == self.weight[0] and self.weight[1] == 1

    @property
    def sum(self) -> bool:
        """Whether it is depthwise, in few channels and with few places."""
        few = self.weight[0] < _FEW_CHANNELS and math.prod(self.weight[2:]) <= _MOST_TERMS
        return self.depthwise and few

    @property
    def form(self) -> str:
        """What it becomes, for the report."""
        if self.depthwise:
            return "sums"
        return "products by Winograd's algorithm" if self.winograd else "products"

    @property
    def pixelwise(self) -> bool:
        """Whether every output sees one pixel, in all channels."""
        pixel = math.prod(self.weight[2:]) == 1 and not any(map(any, self.padding))
        return pixel and self.groups == 1

    @property
    def winograd(self) -> bool:
        """Whether Winograd's algorithm computes it, in fewer multiplications."""
        outputs, depth, *kernel = self.weight
        plain = self.stride == self.dilation == (1, 1) and self.groups == 1
        large = outputs * depth >= _MANY_CHANNELS and self.positions >= _MANY_POSITIONS
        whole_vectors = depth % 16 == outputs % 16 == 0
        return plain and kernel == [3, 3] and large and whole_vectors

    def rewritten(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The same result without a convolution."""
        if self.sum:
            return self._as_sum(x, weight, bias)
        spatial = range(2, x.dim())
        image = x.permute(0, *spatial, 1)
        product = self._of_pixels(image, weight) if self.pixelwise else self._tiled(image, weight)
        product = product if bias is None else product + bias
        return product.permute(0, x.dim() - 1, *range(1, x.dim() - 1))

    def _of_pixels(self, image: Tensor, weight: Tensor) -> Tensor:
        """As a linear layer of the pixels."""
        for dim, step in enumerate(self.stride, start=1):
            image = image[(slice(None),) * dim + (slice(None, None, step),)]
        return linear(image, weight.reshape(self.weight[:2]))

    def _tiled(self, image: Tensor, weight: Tensor) -> Tensor:
        """As an operator of ours, for which we have a kernel."""
        stride, dilation, padding = self.stride, self.dilation, _innermost_first(self.padding)
        line = image.dim() == 3
        if line:
            image, weight = image[:, None], weight[:, :, None]
            stride, dilation, padding = (1, *stride), (1, *dilation), [*padding, 0, 0]
        outputs, depth, *kernel = weight.shape
        if self.winograd:
            by = winograd_weight(weight, vector_block(outputs))
            of_image: Tensor = winograd(image, by, padding)
            return of_image
        if self.depthwise:
            by = weight.permute(2, 3, 0, 1).reshape(*kernel, outputs)
        else:
            own = outputs // self.groups
            by = weight.view(self.groups, -1, block_of(own) or own, depth, *kernel)
            by = by.permute(0, 1, 4, 5, 3, 2)
        compute = depthwise if self.depthwise else convolution
        by = by.clone(memory_format=_CONTIGUOUS)
        result: Tensor = compute(image, by, stride, padding, dilation)
        return result[:, 0] if line else result

    def _as_sum(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """For each place in a window, the shifted input times one weight per channel; summed up."""
        innermost = x.permute(0, *range(2, x.dim()), 1)
        padding = _innermost_first(self.padding)
        seen = windows(innermost, self.weight[2:], self.stride, padding, self.dilation)
        channels, _, *kernel = self.weight
        weights = weight.reshape(channels, -1).t().contiguous()
        total: Tensor | None = bias
        for number, place in enumerate(itertools.product(*map(range, kernel))):
            shifted = seen
            for index in place:
                shifted = shifted.select(x.dim() - 1, index)
            term = shifted * weights[number]
            total = term if total is None else total + term
        assert total is not None
        return total.permute(0, x.dim() - 1, *range(1, x.dim() - 1))


def rewrite_convolutions(program: torch.export.ExportedProgram) -> Rewritten:
    """Replace convolutions by generated code.

    Handles `conv1d` and `conv2d` in float32 on the CPU, with any stride, padding, dilation and
    groups. Depthwise ones become sums, all others products with weights in blocks. Those by 3x3
    pixels in many channels are computed by Winograd's algorithm. Sizes may be dynamic. Transposed
    and unbatched ones stay as they are. This needs frozen weights, or a call would rearrange the
    weights.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    program : torch.export.ExportedProgram
        A program with the same weights; `program` itself if nothing was rewritten.
    report : list of str
        A line for each form that there is.
    """
    if any(node.target == aten.as_strided.default for node in program.graph.nodes):
        return program, []  # it depends on the memory layout of results, which a rewrite changes
    given, program = program, copied(program)
    layers: dict[Node, Layer] = {
        node: layer for node in program.graph_module.graph.nodes if (layer := _layer(node))
    }
    if not layers:
        return given, []
    for node, layer in layers.items():
        called = arguments(node)
        tensors = [called["input"], called["weight"], called["bias"]]
        replace(node, layer.rewritten, [tensor for tensor in tensors if tensor is not None])
    reshape_views(program.graph_module.graph)
    forms = Counter(layer.form for layer in layers.values())
    return finished(program), [f"{count} as {form}" for form, count in sorted(forms.items())]


def fold_batch_norms(program: torch.export.ExportedProgram) -> Rewritten:
    """Fold batch norms that follow a convolution into its weights.

    Inductor does this for its own convolutions, but not for rewritten ones. Only for packages with
    frozen weights: otherwise each call would compute the new weights again.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.

    Returns
    -------
    program : torch.export.ExportedProgram
        A program with the same weights, which computes the folded weights in its graph; `program`
        itself if there was nothing to fold.
    report : list of str
        One line, if there was anything to fold.
    """
    given, program = program, copied(program)
    count = 0
    for norm in list(program.graph_module.graph.nodes):
        if norm.target != aten.batch_norm.default:
            continue
        convolution, called = norm.args[0], arguments(norm)
        foldable = convolution.target in CONVOLUTIONS and len(convolution.users) == 1
        if not foldable or called["training"] or called["running_mean"] is None:
            continue
        before = arguments(convolution)
        names = ("weight", "bias", "running_mean", "running_var")
        tensors = {name: called[name] for name in names if called[name] is not None}
        if before["bias"] is not None:
            tensors["shift"] = before["bias"]
        function = partial(_normed, convolution.target, before, called["eps"], tuple(tensors))
        replace(norm, function, [before["input"], before["weight"], *tensors.values()])
        program.graph_module.graph.erase_node(convolution)
        count += 1
    return (finished(program), [f"{count} folded into convolutions"]) if count else (given, [])


def _normed(
    operator: Any,
    called: Mapping[str, Any],
    eps: float,
    names: Sequence[str],
    x: Tensor,
    weight: Tensor,
    *tensors: Tensor,
) -> Tensor:
    """A convolution with the following batch norm in its weights."""
    given = dict(zip(names, tensors, strict=True))
    scale = torch.rsqrt(given["running_var"] + eps)
    if "weight" in given:
        scale = scale * given["weight"]
    bias = (
        given["shift"] - given["running_mean"] if "shift" in given else -given["running_mean"]
    ) * scale
    if "bias" in given:
        bias = bias + given["bias"]
    scaled = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    result: Tensor = operator(**{**called, "input": x, "weight": scaled, "bias": bias})
    return result


def _layer(node: Node) -> Layer | None:
    """The layer of a node, if it is a convolution that could be rewritten."""
    if node.target not in CONVOLUTIONS:
        return None
    called = arguments(node)
    x, weight = called["input"].meta["val"], called["weight"].meta["val"]
    spatial = weight.dim() - 2
    if (
        called.get("transposed")
        or spatial not in {1, 2}
        or x.dim() != weight.dim()
        or {x.dtype, weight.dtype} != {torch.float32}
        or x.device.type != "cpu"
        or not all(isinstance(size, int) for size in weight.shape)
        or not weight.numel()
    ):
        return None
    dilation = _each(called["dilation"], spatial)
    return Layer(
        weight=tuple(weight.shape),
        stride=_each(called["stride"], spatial),
        padding=_padding(called["padding"], weight.shape[2:], dilation),
        dilation=dilation,
        groups=called["groups"],
        positions=_positions(node.meta["val"]),
    )


def _positions(result: Tensor) -> int:
    """How many elements of a channel a result has; dynamic images are large, and one at a time."""
    batch, _, *sizes = result.shape
    image = math.prod(size if isinstance(size, int) else _MANY_POSITIONS for size in sizes)
    return image * (batch if isinstance(batch, int) else 1)


def _each(value: Sequence[int], count: int) -> tuple[int, ...]:
    return tuple(value) * count if len(value) == 1 else tuple(value)


def _padding(
    value: str | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    if value == "valid":
        return ((0, 0),) * len(kernel)
    if isinstance(value, str):  # "same": an odd zero goes to the end
        total = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        return tuple((zeros // 2, zeros - zeros // 2) for zeros in total)
    return tuple((zeros, zeros) for zeros in _each(value, len(kernel)))


def _innermost_first(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Padding in the order of `torch.constant_pad_nd`."""
    return [zeros for pair in reversed(padding) for zeros in pair]
