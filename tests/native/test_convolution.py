"""Convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import Operand

# The order of sums is the library's own: an error is one of the terms, not of the sum.
TOLERANCE = {"tolerance": 16, "atol": 2e-4}
SIGNATURE = ("cpu_convolution", "ttovvvbvi", 1)


def plain(compare, sizes, dtype):
    strides = [int(np.prod(sizes[dim + 1 :])) for dim in range(len(sizes))]
    return compare.operand(dtype, sizes, strides=strides)


def channels_last(compare, sizes, dtype):
    order = [1, *range(len(sizes) - 1, 1, -1), 0]
    strides, step = [0] * len(sizes), 1
    for dim in order:
        strides[dim] = step
        step *= sizes[dim]
    return compare.operand(dtype, sizes, strides=strides)


def operand_of(compare, sizes, dtype):
    kind = compare.choose("plain", "plain", "last", "any")
    if kind == "last":
        return channels_last(compare, sizes, dtype)
    # Sizes of 1 alone leave open what strides mean, and libtorch looks at them more than once.
    if kind == "any" and np.prod(sizes[1:]) > 1:
        return compare.operand(dtype, sizes)
    return plain(compare, sizes, dtype)


def arguments(compare, dims, transposed, depthwise, dtype="float32"):
    groups = compare.choose(1, 1, 2, 3)
    inputs, outputs = compare.integer(1, 4), compare.integer(1, 4)
    if depthwise:
        groups, inputs, outputs = compare.integer(2, 8), 1, compare.integer(1, 2)
    batch = compare.choose(1, 2, 3)
    kernel = [compare.integer(1, 4) for _ in range(dims)]
    if compare.chance(0.2):
        kernel = [1] * dims
    stride = [compare.integer(1, 3) for _ in range(dims)]
    dilation = [compare.integer(1, 2) for _ in range(dims)]
    padding = [compare.integer(0, 2) for _ in range(dims)]
    further = [0] * dims
    if transposed:
        further = [
            compare.integer(0, max(one, other) - 1)
            for one, other in zip(stride, dilation, strict=True)
        ]
    image = [compare.integer(1, 7 if dims < 3 else 5) for _ in range(dims)]
    for i in range(dims):
        span = dilation[i] * (kernel[i] - 1) + 1
        # With windows that lie wholly in the padding, libtorch's own code may crash.
        padding[i] = min(padding[i], (span - 1) // (2 if transposed else 1))
        if not transposed:
            image[i] = max(image[i], span - 2 * padding[i])
    first = [inputs * groups, outputs] if transposed else [outputs * groups, inputs]
    weight = operand_of(compare, [*first, *kernel], dtype)
    bias = compare.operand(dtype, [outputs * groups]) if compare.chance(0.6) else None
    image = operand_of(compare, [batch, inputs * groups, *image], dtype)
    return image, weight, bias, stride, padding, dilation, int(transposed), further, groups


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", ["plain", "depthwise", "transposed"])
def test_convolution(compare, dims, kind):
    for _ in compare.count(150):
        call = arguments(compare, dims, kind == "transposed", kind == "depthwise")
        compare.check(*SIGNATURE, *call, **TOLERANCE)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "transposed"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_dtypes(compare, dims, kind, dtype):
    loose = {"tolerance": 16, "atol": 0.3 if "16" in dtype else 1e-4}
    for _ in compare.count(20):
        call = arguments(compare, dims, kind == "transposed", False, dtype)
        compare.check(*SIGNATURE, *call, **loose)


def image_net(compare, batch, inputs, outputs, image, kernel, stride, groups=1):
    for made in (plain, channels_last):
        values = made(compare, (batch, inputs, image, image), "float32")
        weight = made(compare, (outputs, inputs // groups, kernel, kernel), "float32")
        bias = compare.operand("float32", (outputs,))
        both = [stride] * 2, [kernel // 2] * 2, [1, 1], 0, [0, 0], groups
        compare.check(*SIGNATURE, values, weight, bias, *both, tolerance=16, atol=4e-3)


def test_larger_ones(compare):
    image_net(compare, 1, 3, 32, 64, 7, 2)
    image_net(compare, 4, 32, 32, 28, 3, 1)
    image_net(compare, 2, 40, 100, 14, 3, 2)
    image_net(compare, 1, 64, 128, 14, 1, 1)
    image_net(compare, 2, 48, 120, 14, 3, 1, groups=2)
    image_net(compare, 3, 64, 64, 14, 3, 1, groups=64)


def test_long_ones(compare):
    values, weight = (compare.operand("float32", s) for s in ((2, 40, 3001), (50, 40, 9)))
    call = (values, weight, None, [2], [4], [1], 0, [0], 1)
    compare.check(*SIGNATURE, *call, tolerance=16, atol=4e-3)


def test_larger_transposed_ones(compare):
    values, weight = (compare.operand("float32", s) for s in ((1, 8, 90, 90), (8, 16, 5, 5)))
    call = (values, weight, None, [2, 2], [2, 2], [1, 1], 1, [1, 1], 1)
    compare.check(*SIGNATURE, *call, tolerance=16, atol=1e-3)


def test_empty_batches(compare):
    values, weight = (
        Operand.of(np.ones((0, 4, 5, 5), "f4")),
        Operand.of(np.ones((6, 4, 3, 3), "f4")),
    )
    for transposed in (0, 1):
        if transposed:
            weight = Operand.of(np.ones((4, 6, 3, 3), "f4"))
        compare.check(*SIGNATURE, values, weight, None, [1], [0], [1], transposed, [0], 1)


def test_refused(compare):
    values = Operand.of(np.ones((1, 4, 5, 5), "f4"))
    for sizes, groups in (
        ((6, 3, 3, 3), 1),
        ((6, 4, 7, 7), 1),
        ((6, 2, 3, 3), 1),
        ((5, 2, 3, 3), 2),
    ):
        weight = Operand.of(np.ones(sizes, "f4"))
        call = (values, weight, None, [1, 1], [0, 0], [1, 1], 0, [0, 0], groups)
        compare.check(*SIGNATURE, *call, fails=True)
