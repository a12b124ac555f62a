"""Elements read and written by index."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import COMPLEX, FLOATS, INTEGERS, Operand, volume

ALL = [*INTEGERS, "bool", *FLOATS, *COMPLEX]


def strided_copy(compare, dtype, values, sizes):
    """An operand of one of many layouts with these values."""
    made = compare.operand(dtype, sizes, repeats=False)
    made.array()[...] = np.reshape(values, sizes)
    return made


def numbers(compare, count, low, high):
    return [compare.integer(low, high) for _ in range(count)]


def index_of(compare, limit, sizes, unsafe=False):
    """int64 or int32, negative ones among them."""
    dtype = compare.choose("int64", "int64", "int32")
    values = numbers(compare, volume(sizes), -limit, limit - 1)
    if unsafe and values:
        values[-1] = compare.choose(limit, -limit - 1)
    return strided_copy(compare, dtype, np.array(values), sizes)


def indices_of(compare, sizes):
    """Indices of a tensor, nulls among them."""
    shared = compare.sizes(0, 2, 3)
    indices = []
    dim = 0
    while dim < len(sizes):
        kind = compare.choose("none", "index", "index", "one", "mask")
        if kind == "none" or sizes[dim] == 0:
            indices.append(None)
        elif kind == "mask":
            # A mask that lets so many through as the other indices are broadcast with.
            wanted = 1 if shared and shared[-1] != 1 else compare.integer(0, sizes[dim])
            wanted = min(shared[-1] if shared and compare.chance(0.5) else wanted, sizes[dim])
            if shared and wanted not in (1, shared[-1]):
                wanted = 1
            mask = np.zeros(sizes[dim], bool)
            mask[compare.random.sample(range(sizes[dim]), wanted)] = True
            dtype = compare.choose("bool", "bool", "uint8")
            indices.append(Operand.of(mask.astype(dtype)))
            if not shared:
                shared = [wanted]
        else:
            own = [1 if kind == "one" else size for size in shared]
            indices.append(index_of(compare, sizes[dim], own))
        dim += 1
        if compare.chance(0.2):
            break
    if not any(indices):
        indices.append(None)
        indices = indices[: len(sizes)]
    return indices


def has_index(indices):
    return any(index is not None for index in indices)


@pytest.mark.parametrize("dtype", ALL)
def test_index(compare, dtype):
    for _ in compare.count(150):
        sizes = compare.sizes(1, 4, 5)
        indices = indices_of(compare, sizes)
        if has_index(indices):
            compare.check(
                *("cpu_index_Tensor", "tL", 1),
                *(compare.operand(dtype, sizes), indices),
                fails=True,  # masks may not fit the other indices
            )


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4), (3, 1, 2, 2)])
def test_masks_of_several_dimensions(compare, shape):
    for _ in compare.count(75):
        operand = compare.operand("float32", shape)
        rank = compare.integer(1, len(shape))
        first = compare.integer(0, len(shape) - rank)
        mask = compare.operand("bool", shape[first : first + rank], repeats=False)
        compare.check("cpu_index_Tensor", "tL", 1, operand, [None] * first + [mask])
        values = compare.operand("float32", [])
        puts = ([None] * first + [mask], values, compare.integer(0, 1))
        compare.check("cpu_index_put", "tLtb", 1, operand, *puts)


def test_large_ones(compare):
    for sizes in ((5000, 64), (200, 300, 7)):
        operand = compare.operand("float32", sizes)
        for dim, size in enumerate(sizes):
            index = index_of(compare, size, (300,))
            compare.check("cpu_index_Tensor", "tL", 1, operand, [None] * dim + [index])


def test_out_of_range(compare):
    for _ in compare.count(30):
        sizes = [compare.integer(1, 4) for _ in range(compare.integer(1, 3))]
        dim = compare.integer(0, len(sizes) - 1)
        index = index_of(compare, sizes[dim], [compare.integer(1, 3)], unsafe=True)
        operand = compare.operand("float32", sizes)
        compare.check("cpu_index_Tensor", "tL", 1, operand, [None] * dim + [index], fails=True)
    operand = compare.operand("float32", (3, 4))
    wrong = Operand.of(np.ones(2, bool))
    compare.check("cpu_index_Tensor", "tL", 1, operand, [wrong], fails=True)
    compare.check("cpu_index_Tensor", "tL", 1, operand, [None, None, wrong], fails=True)


def put_arguments(compare, dtype, unique):
    sizes = compare.sizes(1, 4, 5)
    if 0 in sizes:
        sizes = [max(size, 1) for size in sizes]
    dim = compare.integer(0, len(sizes) - 1)
    if unique:
        count = compare.integer(0, sizes[dim])
        chosen = compare.random.sample(range(sizes[dim]), count)
        index = strided_copy(compare, "int64", np.array(chosen, np.int64), (count,))
        indices = [None] * dim + [index]
        result = [*sizes[:dim], count, *sizes[dim + 1 :]]
    else:
        shared = compare.sizes(0, 2, 4)
        both = dim + 1 < len(sizes) and compare.chance(0.5)
        indices = [None] * dim + [
            index_of(compare, size, shared) for size in sizes[dim : dim + 1 + both]
        ]
        result = [*sizes[:dim], *shared, *sizes[dim + 1 + both :]]
    wanted = [1 if compare.chance(0.15) else size for size in result]
    wanted = wanted[compare.integer(0, len(wanted)) if compare.chance(0.2) else 0 :]
    operand = compare.operand(dtype, sizes, repeats=False)
    return operand, indices, compare.operand(dtype, wanted)


@pytest.mark.parametrize("dtype", ALL)
def test_index_put(compare, dtype):
    for case in compare.count(100):
        unique = case % 2 == 0
        operand, indices, values = put_arguments(compare, dtype, unique)
        accumulate = 0 if unique else 1
        rounding = {"tolerance": 8, "atol": 8 * 2.0**-5 if dtype == "bfloat16" else 1e-4}
        if dtype == "float16":
            rounding["atol"] = 8 * 2.0**-8
        rounding = rounding if accumulate else {}
        call = (operand, indices, values, accumulate)
        compare.check("cpu_index_put", "tLtb", 1, *call, **rounding)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "complex64", "float16"])
def test_index_put_out(compare, dtype):
    for case in compare.count(50):
        unique = dtype == "float16" or case % 2 == 0
        operand, indices, values = put_arguments(compare, dtype, unique)
        indices = [index for index in indices if index is not None]
        if len(indices[0:1]) and len(operand.sizes) > 1:
            continue
        out = compare.output(dtype, operand.sizes)
        call = (out, operand, indices, values, 0 if unique else 1)
        compare.check("index_put_out", "mtltb", 0, *call, tolerance=8, atol=1e-5)


@pytest.mark.parametrize("dtype", ALL)
def test_nonzero_and_masked_select(compare, dtype):
    for _ in compare.count(75):
        sizes = compare.sizes(0, 4, 6)
        compare.check("cpu_nonzero", "t", 1, compare.operand(dtype, sizes, "few"))
        ours, other = compatible(compare, sizes)
        call = compare.operand(dtype, ours), compare.operand("bool", other)
        compare.check("cpu_masked_select", "tt", 1, *call)


def compatible(compare, sizes):
    """Two lists of sizes that are broadcast to `sizes`, or to fewer dimensions."""
    both = []
    for _ in range(2):
        own = [1 if compare.chance(0.15) else size for size in sizes]
        both.append(own[compare.integer(0, len(own)) if compare.chance(0.15) else 0 :])
    return both


def scatter_arguments(compare, dtype, unique):
    sizes = compare.sizes(0, 3, 5)
    rank = len(sizes)
    dim = compare.integer(0, max(rank, 1) - 1)
    own = [compare.integer(min(size, 1), size) for size in sizes]
    if rank and not unique and sizes[dim]:
        own[dim] = compare.integer(1, 6)
    if 0 in sizes:
        own = list(sizes)
    limit = sizes[dim] if rank else 1
    source = [size + compare.integer(0, 1) for size in own]
    if unique and rank and 0 not in own:
        values = np.argsort(
            np.random.default_rng(compare.integer(0, 1 << 30)).random(
                [limit if i == dim else size for i, size in enumerate(own)]
            ),
            axis=dim,
        )
        values = np.take(values, range(own[dim]), dim)
    else:
        values = np.array(numbers(compare, volume(own), 0, max(limit - 1, 0)))
    index = strided_copy(compare, compare.choose("int64", "int32"), values, own)
    out = compare.output(dtype, sizes)
    given = dim - max(rank, 1) if compare.chance(0.3) else dim
    return out, compare.operand(dtype, sizes), given, index, compare.operand(dtype, source)


@pytest.mark.parametrize("dtype", ALL)
def test_scatter(compare, dtype):
    for _ in compare.count(75):
        call = scatter_arguments(compare, dtype, unique=True)
        compare.check("scatter_out", "mtitt", 0, *call)
        compare.check("cpu_scatter_src_out", "mtitt", 0, *call)
        value = float(compare.integer(0, 3))
        compare.check("cpu_scatter_value_out", "mtitd", 0, *call[:4], value)


@pytest.mark.parametrize("reduce", [b"sum", b"prod", b"mean", b"amax", b"amin"])
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_scatter_reduce(compare, dtype, reduce):
    tolerances = {"float16": 2e-2, "bfloat16": 0.3}
    for _ in compare.count(30):
        call = scatter_arguments(compare, dtype, unique=False)
        rounding = {}
        if dtype in FLOATS and not reduce.startswith(b"am"):
            rounding = {"tolerance": 32, "atol": tolerances.get(dtype, 1e-5)}
        for name in ("cpu_scatter_reduce_two_out", "scatter_reduce_out"):
            includes = compare.integer(0, 1)
            compare.check(name, "mtittsb", 0, *call, reduce, includes, **rounding)


def test_scatter_out_of_range(compare):
    operand, source = compare.operand("float32", (3, 4)), compare.operand("float32", (2, 4))
    index = Operand.of(np.full((2, 4), 3, np.int64))
    compare.check("scatter_out", "mtitt", 0, operand, operand, 0, index, source, fails=True)
