"""Rewrites of convolutions: small ones become products or sums, batch norms go into weights.

A package runs a convolution by calling libtorch's, which costs some tens of microseconds even for
small layers. As matrix products, or as a sum for a depthwise convolution, it becomes generated
code, fused with what follows. This is not faster for every layer, so each layer is timed in both
forms first. All rewrites compute the same up to the rounding of floats.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from aoti.exporting.passes.graph_editing import (
    arguments,
    copied,
    finished,
    hint,
    replace,
    reshape_views,
)
from aoti.exporting.passes.operators import convolution, length, windows

aten = torch.ops.aten

CONVOLUTIONS = (
    *(aten.conv1d.default, aten.conv1d.padding),
    *(aten.conv2d.default, aten.conv2d.padding),
    aten.convolution.default,
)
# Multiplications of the largest layer that is considered. Larger ones never became faster: compared
# with their arithmetic, the call of libtorch's kernel does not matter.
_LARGEST = 32e6
_GAIN = 0.95  # a layer is rewritten if it takes less than this share of the time before

Measure = Callable[[Sequence["Layer"]], Sequence[tuple[float, float]]]
Rewritten = tuple[torch.export.ExportedProgram, list[str]]


@dataclass(frozen=True)
class Layer:
    """A convolution: everything that its time depends on.

    Attributes
    ----------
    input : tuple of int
        (batch, channels, *sizes); for a dynamic size, that of the example.
    dynamic : tuple of int
        The dimensions of the input that may change.
    weight : tuple of int
        (output channels, channels / groups, *kernel).
    bias : bool
        Whether the layer has a bias.
    stride, dilation : tuple of int
        One per size.
    padding : tuple of (int, int)
        Zeros before and after, one pair per size.
    groups : int
        Number of groups of channels.
    """

    input: tuple[int, ...]
    dynamic: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def __str__(self) -> str:
        kernel = "x".join(map(str, self.weight[2:]))
        return f"conv{len(self.stride)}d {self.input[1]} to {self.weight[0]}, kernel {kernel}"

    @property
    def rewrite(self) -> str | None:
        """What it can become: ``"product"``, ``"sum"`` or None."""
        if self.groups == 1:
            return "product"
        return "sum" if self.groups == self.input[1] == self.weight[0] else None

    @property
    def outputs(self) -> tuple[int, ...]:
        """The sizes of the output."""
        return tuple(
            length(size + sum(pad), kernel, stride, dilation)
            for size, pad, kernel, stride, dilation in zip(
                self.input[2:],
                self.padding,
                self.weight[2:],
                self.stride,
                self.dilation,
                strict=True,
            )
        )

    @property
    def multiplications(self) -> int:
        """The number of multiplications in one call."""
        return self.input[0] * math.prod(self.outputs) * math.prod(self.weight)

    def original(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution as libtorch computes it."""
        function = torch.conv1d if len(self.stride) == 1 else torch.conv2d
        if all(before == behind for before, behind in self.padding):
            symmetric = [before for before, _ in self.padding]
            return function(x, weight, bias, self.stride, symmetric, self.dilation, self.groups)
        padded = torch.constant_pad_nd(x, _innermost_first(self.padding), 0.0)
        return function(padded, weight, bias, self.stride, 0, self.dilation, self.groups)

    def rewritten(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The same result without a convolution."""
        if self.rewrite == "sum":
            return self._as_sum(x, weight, bias)
        return self._as_product(x, weight, bias)

    def _as_product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Matrix products with the weights, channels innermost."""
        spatial = range(2, x.dim())
        weight = weight.permute(*spatial, 1, 0).contiguous()
        if any(dim in self.dynamic for dim in spatial):
            product = self._unfolded(x, weight, bias)
        else:
            product = self._in_tiles(x, weight)
            product = product if bias is None else product + bias
        return product.permute(0, x.dim() - 1, *range(1, x.dim() - 1))

    def _unfolded(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Every window as a row of a matrix, times the weights."""
        seen = self._windows(x)
        rows, columns = seen.reshape(-1, math.prod(self.weight[1:])), weight.flatten(0, -2)
        # Inductor cannot fuse a sum into its template for a product with dynamic sizes.
        product = rows @ columns if bias is None else torch.addmm(bias, rows, columns)
        return product.view(*seen.shape[: x.dim() - 1], -1)

    def _in_tiles(self, x: Tensor, weight: Tensor) -> Tensor:
        """As the operator `convolution`, for which we have a kernel."""
        padding = _innermost_first(self.padding)
        product: Tensor
        if x.dim() == 4:
            image = x.permute(0, 2, 3, 1)
            product = convolution(image, weight, self.stride, padding, self.dilation)
        else:
            line, above_and_below = x.permute(0, 2, 1)[:, None], (0, 0)
            padding = [*padding, *above_and_below]
            stride, dilation = (1, *self.stride), (1, *self.dilation)
            product = convolution(line, weight[None], stride, padding, dilation)[:, 0]
        return product

    def _as_sum(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """For each place in a window, the shifted input times one weight per channel; summed up."""
        seen = self._windows(x)
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

    def _windows(self, x: Tensor) -> Tensor:
        innermost = x.permute(0, *range(2, x.dim()), 1)
        padding = _innermost_first(self.padding)
        return windows(innermost, self.weight[2:], self.stride, padding, self.dilation)


def rewrite_convolutions(
    program: torch.export.ExportedProgram, measure: Measure | None = None
) -> Rewritten:
    """Replace small convolutions by generated code.

    Handles `conv1d` and `conv2d` in float32 on the CPU, with any stride, padding and dilation. A
    convolution over all channels becomes a matrix product, a depthwise one a sum; other groups,
    unbatched and large ones stay as they are. Sizes may be dynamic.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program; it is not changed.
    measure : callable, optional
        Returns the seconds before and after for each layer, as `layer_benchmark.measure`; a layer
        is rewritten only if that is faster. Without `measure`, all layers are rewritten.

    Returns
    -------
    program : torch.export.ExportedProgram
        A program with the same weights; `program` itself if nothing was rewritten.
    report : list of str
        A line for each kind of layer that was considered.

    Raises
    ------
    ArithmeticError
        A rewritten layer differs from the original by more than rounding. Nothing was rewritten.
    """
    if any(node.target == aten.as_strided.default for node in program.graph.nodes):
        return program, []  # it depends on the memory layout of results, which a rewrite changes
    given, program = program, copied(program)
    found: dict[Node, Layer] = {
        node: layer
        for node in program.graph_module.graph.nodes
        if (layer := _layer(node)) and layer.rewrite and layer.multiplications <= _LARGEST
    }
    layers = list(dict.fromkeys(found.values()))
    times = dict(zip(layers, measure(layers), strict=True)) if measure and layers else {}
    report, left_alone = [], True
    for layer in layers:
        count = sum(other == layer for other in found.values())
        line = f"{layer}" + (f" ({count} times)" if count > 1 else "")
        if layer in times:
            before, after = times[layer]
            if not after < _GAIN * before:  # also if neither form compiles
                report.append(
                    f"{line}: not rewritten, {_us(after)} as a {layer.rewrite}, {_us(before)} now"
                )
                continue
            line += f": {_us(after)} instead of {_us(before)}"
        _check(layer)
        report.append(f"{line}, as a {layer.rewrite}")
        left_alone = False
        for node in [node for node, other in found.items() if other == layer]:
            called = arguments(node)
            tensors = [called["input"], called["weight"], called["bias"]]
            replace(node, layer.rewritten, [tensor for tensor in tensors if tensor is not None])
    if left_alone:
        return given, report
    reshape_views(program.graph_module.graph)
    return finished(program), report


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
        or not all(isinstance(size, int) for size in (x.shape[1], *weight.shape))
    ):
        return None
    sizes = tuple(map(hint, x.shape))
    if None in sizes:
        return None
    dilation = _each(called["dilation"], spatial)
    return Layer(
        input=sizes,  # type: ignore[arg-type]
        dynamic=tuple(dim for dim, size in enumerate(x.shape) if not isinstance(size, int)),
        weight=tuple(weight.shape),
        bias=called["bias"] is not None,
        stride=_each(called["stride"], spatial),
        padding=_padding(called["padding"], weight.shape[2:], dilation),
        dilation=dilation,
        groups=called["groups"],
    )


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


def _check(layer: Layer) -> None:
    """Compare both forms of a layer, in double precision: only rounding may differ."""
    generator = torch.Generator().manual_seed(0)
    shapes = [layer.input, layer.weight, *([layer.weight[:1]] if layer.bias else [])]
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    expected, actual = layer.original(*tensors), layer.rewritten(*tensors)
    if actual.shape != expected.shape or not torch.allclose(actual, expected, rtol=1e-9, atol=1e-9):
        raise ArithmeticError(f"{layer} as a {layer.rewrite} differs from the convolution")


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < math.inf else "does not compile"
