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


def test_bools_are_reduced_as_eager_does(masks):
    """Inductor's code for the largest of some bools is refused by the C++ compiler."""
    from exporter_packages import bools_reduced

    for low, high in ((0, 4), (0, 2), (2, 4)):
        for columns in (8, 45, 64):
            generator = torch.Generator().manual_seed(columns)
            x = torch.randint(low, high, (5, columns), generator=generator)
            found = masks(x)
            for name, expected in bools_reduced(x).items():
                result = found[f"{name} of bools"]
                assert result.dtype == expected.dtype, name
                assert torch.equal(result, expected), (name, columns)


def test_a_number_to_the_power_of_integers_is_an_integer(masks):
    from exporter_packages import powers_of_numbers

    x = torch.arange(45).reshape(3, 15)
    found = masks(x)
    assert found["2 to torch.int32"][0, :4].tolist() == [1, 2, 4, 8]
    for name, expected in powers_of_numbers(x).items():
        assert found[name].dtype == expected.dtype, name
        torch.testing.assert_close(found[name], expected, msg=name)


SPECIAL = [
    *(0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, -0.5, 0.1, math.inf, -math.inf, math.nan, 7.0, 0.3),
    *(3.4e38, -3.4e38, 1e19, 2e19, 1e30, 65504.0, -65504.0, 1e-40, -1e-40, 6e-8, -6e-8, 6.2e-5),
]


@pytest.fixture(scope="module")
def special(exporter_packages):
    with aoti.load(exporter_packages / "special.pt2") as model:
        yield model


def called(model, pair=None, losses=None):
    """Results for a pair, converted to every dtype, and for scores and labels."""
    a, b = pair or (torch.ones(2), torch.ones(2))
    dtypes = ("float16", "bfloat16", "float32")
    pairs = {name: (a.to(getattr(torch, name)), b.to(getattr(torch, name))) for name in dtypes}
    return model(pairs, *(losses or (torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.int64))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_special_values_give_what_eager_gives(special, dtype):
    from exporter_packages import special_values

    pairs = [(a, b) for a in SPECIAL for b in SPECIAL]
    a, b = (torch.tensor(values) for values in zip(*pairs, strict=True))
    found = called(special, (a, b))[dtype]
    kind = getattr(torch, dtype)
    for name, expected in special_values(a.to(kind), b.to(kind)).items():
        exact = {"rtol": 0, "atol": 0} if name.startswith("nextafter") else {}
        torch.testing.assert_close(found[name], expected, equal_nan=True, msg=name, **exact)


def test_the_next_number_of_16_bits_is_another_one(special):
    a = torch.tensor([1.0, -1.0, 0.0, 0.0, 65504.0])
    b = torch.tensor([2.0, 0.0, 1.0, -1.0, math.inf])
    found = called(special, (a, b))["float16"]["nextafter"]
    assert found.tolist() == [1 + 2**-10, -1 + 2**-11, 2**-24, -(2**-24), math.inf]


def test_products_of_mixed_dtypes_are_computed_in_the_wider_one(special):
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([300.0, 60000.0, 1e-4])
    found = called(special, (a, b))["mixed"]
    narrow = b.half()
    torch.testing.assert_close(found["addcmul"], torch.addcmul(a, narrow, narrow, value=2.0))
    divided = torch.addcdiv(a[:, None], narrow, a, value=0.5)
    torch.testing.assert_close(found["addcdiv"], divided)


@pytest.mark.parametrize("classes", [3, 8, 17, 40])
def test_labels_behind_the_end_do_not_count(special, classes):
    from exporter_packages import margin_losses

    generator = torch.Generator().manual_seed(classes)
    scores = torch.randn(6, classes, generator=generator)
    labels = torch.stack([torch.randperm(classes, generator=generator) for _ in range(6)])
    labels = torch.where(torch.rand(labels.shape, generator=generator) > 0.7, -1, labels)
    labels[0, 0], labels[1] = -1, torch.arange(classes)  # none, and no end
    found = called(special, losses=(scores, labels))["losses"]
    for name, expected in margin_losses(scores, labels).items():
        torch.testing.assert_close(found[name], expected, msg=name)


def test_nothing_is_left_of_the_decompositions():
    before = dict(inductor.decompositions)
    loss = torch.ops.aten.multilabel_margin_loss_forward.default
    kernels = dict(loss.py_kernels)
    with corrected():
        assert loss.py_kernels != kernels
        assert dict(inductor.select_decomp_table()).keys() >= inductor.decompositions.keys()
        assert torch.ops.aten.remainder.Tensor in inductor.select_decomp_table()
    assert inductor.decompositions == before
    assert loss.py_kernels == kernels
    with corrected(wanted=False):
        assert inductor.decompositions == before
