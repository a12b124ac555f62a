"""Bags of embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import Operand


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_embedding_bag(compare, dtype, mode):
    # libtorch's sums of float16 and bfloat16 are rounded in other places.
    rounding = {"tolerance": 4, "atol": {"bfloat16": 0.1, "float16": 0.02}.get(dtype, 1e-5)}
    for _ in compare.count(60):
        rows, width, bags = compare.integer(1, 6), compare.integer(1, 9), compare.integer(1, 5)
        weight = compare.operand(dtype, (rows, width), repeats=False)
        lengths = [compare.integer(0, 4) for _ in range(bags)]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        last = compare.integer(0, 1)
        kinds = compare.choose("int64", "int64", "int32"), compare.choose("int64", "int32")
        values = [compare.integer(0, rows - 1) for _ in range(offsets[-1])]
        indices = Operand.of(np.array(values, kinds[0]))
        starts = Operand.of((offsets if last else offsets[:-1]).astype(kinds[1]))
        factors = None
        if mode == 0 and compare.chance(0.3):
            factors = compare.operand(dtype, (len(values),), repeats=False)
        padding = compare.integer(0, rows - 1) if compare.chance(0.3) else -1
        call = (weight, indices, starts, 0, mode, 0, factors, last, padding)
        compare.check("cpu__embedding_bag", "tttbibobi", 4, *call, **rounding)


def test_refused(compare):
    weight = compare.operand("float32", (3, 4), strides=[4, 1])
    offsets = Operand.of(np.array([0, 1]))
    for indices in ([0, 3], [-1, 0]):
        given = Operand.of(np.array(indices))
        call = (weight, given, offsets, 0, 1, 0, None, 0, -1)
        compare.check("cpu__embedding_bag", "tttbibobi", 4, *call, fails=True)
