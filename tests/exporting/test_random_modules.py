"""Random modules: a package gives what eager gives, or refuses the sizes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import aoti

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_modules import (  # noqa: E402
    DTYPES,
    LARGEST,
    SMALLEST,
    Expressions,
    example,
    expressions,
)

ENGINES = ["libtorch"]
TRIES = 24
PRIMES = (29, 31, 37, 41, 43)  # lengths that cannot be divided into parts
TOLERANCES = {"float16": 5e-3, "bfloat16": 4e-2, "float32": 1e-4, "float64": 1e-9}


def wrong(text, expected, found):
    """What is wrong with a result; None if nothing is."""
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return f"{text}: {found.dtype} {tuple(found.shape)} for {expected.dtype} {expected.shape}"
    if not expected.is_floating_point():
        different = found != expected
    else:
        tolerance = TOLERANCES[str(expected.dtype).removeprefix("torch.")]
        ours, theirs = found.double(), expected.double()
        finite = theirs[theirs.isfinite()].abs()
        scale = tolerance * float(finite.max()) if finite.numel() else 0.0
        different = ~torch.isclose(ours, theirs, tolerance, scale, equal_nan=True)
    if not different.any():
        return None
    place = tuple(different.nonzero()[0].tolist())
    return f"{text}: {found[place]} at {place} of {tuple(found.shape)}, eager {expected[place]}"


def test_there_are_hundreds_of_different_modules():
    assert sum(len(set(expressions(dtype))) for dtype in DTYPES) >= 300


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_package_gives_what_eager_gives(random_packages, dtype, engine):
    module = Expressions(dtype)
    sizes = torch.Generator().manual_seed(7)
    faults: dict[str, str] = {}
    refused = 0
    with aoti.load(random_packages / f"{dtype}.pt2") as model:
        for seed in range(TRIES):
            rows, columns = torch.randint(SMALLEST, LARGEST, (2,), generator=sizes).tolist()
            length = 24 + 12 * (seed % 3) if seed % 4 else PRIMES[seed % len(PRIMES)]
            given = example(dtype, rows, columns, length, seed)
            try:
                found = model(**given)
            except aoti.InputError as error:
                assert length % 12, error
                refused += 1
                continue
            assert length % 12 == 0
            for text, expected in module(**given).items():
                fault = wrong(text, expected, found[text])
                if fault:
                    faults.setdefault(text, f"seed {seed}, {rows} x {columns}: {fault}")
    assert refused == TRIES // 4
    assert not faults, "\n".join(faults.values())
