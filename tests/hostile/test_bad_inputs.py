"""No input hurts: each is refused in words that help, or is right, and the model still answers."""

from __future__ import annotations

import inputs_arrays
import inputs_calls
import inputs_objects
import inputs_signals
import pytest

import aoti

TABLES = (inputs_arrays, inputs_calls, inputs_objects, inputs_signals)


@pytest.mark.parametrize("row", [f"{t.__name__}/{row.id}" for t in TABLES for row in t.ROWS])
def test_a_bad_input_leaves_the_model_as_it_was(passes, row):
    passes(row)


def test_the_package_whose_kernels_abort_says_so(packages):
    # Nothing can catch what its kernels throw, so the documented warning is all there is.
    with aoti.Package(packages / "stock_abort.pt2") as package:
        assert package.may_abort()
    with aoti.Package(packages / "lookup.pt2") as package:
        assert not package.may_abort()  # the same model from aoti.export: see inputs_calls.VALUES
