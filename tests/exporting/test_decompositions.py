"""Operators that Inductor compiles to wrong values: a package gives what eager gives."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

import aoti

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[1]))
from exporter_packages import divided, masks_reduced  # noqa: E402
from torch._inductor import decomposition as inductor  # noqa: E402

from aoti.exporting.passes.decompositions import corrected  # noqa: E402


@pytest.fixture(scope="module")
def masks(exporter_packages):
    with aoti.load(exporter_packages / "masks.pt2") as model:
        yield model


@pytest.fixture(scope="module")
def quotients(exporter_packages):
    with aoti.load(exporter_packages / "quotients.pt2") as model:
        yield model


def test_the_first_of_equal_elements_of_a_mask_is_found(masks):
    x = (torch.tensor([[0, 3, 3, 0, 3, 1, 2, 3], [3, 3, 0, 0, 3, 1, 2, 3]]) > 0).long()
    assert masks(x)["argmax uint8 1"].tolist() == [1, 0]
    assert masks(x)["argmin int8 1"].tolist() == [0, 2]


def test_masks_along_each_dimension_are_reduced_as_eager_does(masks):
    generator = torch.Generator().manual_seed(0)
    for columns in (8, 31, 32, 45, 64, 100):
        for low, high in ((0, 2), (-128, 256)):
            x = torch.randint(low, high, (5, columns), generator=generator)
            found = masks(x)
            for name, expected in masks_reduced(x).items():
                assert found[name].dtype == expected.dtype, name
                assert found[name].tolist() == expected.tolist(), (name, columns)


FLOATS = ["float16", "bfloat16", "float32", "float64"]
QUOTIENTS = [
    *((1e10, 3.0), (-1e10, 3.0), (1e10, -3.0), (5.0, math.inf), (-5.0, math.inf), (5.0, -math.inf)),
    *((math.inf, 2.0), (5.0, 0.0), (-5.0, 0.0), (0.0, 0.0), (-0.0, 3.0), (5.0, -2.0), (1.0, 0.1)),
    *((math.nan, 2.0), (1e6, 0.7), (1e-40, 2.0), (7.5, 2.5), (-7.5, 2.5), (6.0, 0.3)),
]


@pytest.mark.parametrize("dtype", FLOATS)
def test_quotients_of_floats_are_those_of_eager(quotients, dtype):
    pairs = [(a, b) for a, b in QUOTIENTS for _ in range(3)]  # vectors, and the rest of a loop
    a, b = (torch.tensor(values).to(getattr(torch, dtype)) for values in zip(*pairs, strict=True))
    pairs = {
        f"{name}_{n}": torch.ones(2, dtype=getattr(torch, name)) for name in FLOATS for n in "ab"
    }
    found = quotients(pairs | {f"{dtype}_a": a, f"{dtype}_b": b})
    for name, expected in divided(a, b).items():
        assert torch.equal(found[f"{dtype} {name}"].nan_to_num(7), expected.nan_to_num(7)), name


def test_nothing_is_left_of_the_decompositions():
    before = dict(inductor.decompositions)
    with corrected():
        assert dict(inductor.select_decomp_table()).keys() >= inductor.decompositions.keys()
        assert torch.ops.aten.remainder.Tensor in inductor.select_decomp_table()
    assert inductor.decompositions == before
    with corrected(wanted=False):
        assert inductor.decompositions == before
