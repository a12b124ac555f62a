"""Scaled dot-product attention."""

from __future__ import annotations

import pytest

NAME = "cpu__scaled_dot_product_flash_attention_for_cpu"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_attention(compare, dtype):
    bounds = {"float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}
    for _ in compare.count(125):
        batch, heads = compare.integer(1, 3), compare.integer(1, 3)
        rows, columns = compare.integer(1, 9), compare.integer(1, 9)
        if compare.chance(0.1):
            rows, columns = compare.integer(30, 130), compare.integer(30, 130)
        width = compare.choose(1, 3, 8, 16, 20, 64)
        sizes = (batch, heads, rows, width), (batch, heads, columns, width)
        # libtorch wants the last dimension dense.
        operands = []
        for kind in (sizes[0], sizes[1], sizes[1]):
            strides, step = [0] * 4, kind[3]
            strides[3] = 1
            for dim in compare.choose((2, 1, 0), (1, 2, 0)):
                strides[dim] = step
                step *= kind[dim] + (1 if compare.chance(0.1) else 0)
            operands.append(compare.operand(dtype, kind, strides=strides))
        mask, causal = None, 0
        kind = compare.choose("none", "causal", "mask", "mask")
        if kind == "causal":
            causal = 1
        elif kind == "mask":
            own = [size if compare.chance(0.6) else 1 for size in (batch, heads)]
            mask = compare.operand(compare.choose(dtype, "float32"), [*own, rows, columns])
            if mask.dtype != dtype and dtype == "float16":
                mask = compare.operand(dtype, mask.sizes)
        scale = None if compare.chance(0.7) else 0.25
        call = (*operands, 0.0, causal, mask, scale)
        compare.check(NAME, "tttdbop", 2, *call, tolerance=16, atol=bounds[dtype])
