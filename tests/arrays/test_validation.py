"""Checks of a call: what is repaired, what is refused, and in which words."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from aoti import ConstantSpec, Dim, InputError, InputTypeError, Signature, TensorSpec
from aoti.arrays.validation import Checker
from aoti.signature.pytree import CallPlan

VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)
LEAF = '{"type": null, "context": null, "children_spec": []}'


def spec(shape, strides, dtype="float32", name="x", values=None) -> TensorSpec:
    dims = tuple(Dim(size) if isinstance(size, str) else size for size in shape)
    return TensorSpec(name, dtype, dims, tuple(strides.split(", ")), "cpu", values=values)


def checker(*arguments, **fields) -> Checker:
    return Checker(Signature(arguments=arguments, **fields), "m.pt2")


def plan(*args: str, **kwargs: str) -> CallPlan:
    """A plan of a call with these leaves, which are given by their names."""
    children = f"[{', '.join([LEAF] * len(args))}]", f"[{', '.join([LEAF] * len(kwargs))}]"
    context = str(list(kwargs)).replace("'", '\\"')
    document = (
        '[1, {"type": "builtins.tuple", "context": "null", "children_spec": ['
        f'{{"type": "builtins.tuple", "context": "null", "children_spec": {children[0]}}}, '
        f'{{"type": "builtins.dict", "context": "{context}", "children_spec": {children[1]}}}]}}]'
    )
    return CallPlan.from_json(document, f"[1, {LEAF}]", parameters=args)


def test_sizes_that_do_not_agree_name_both_inputs():
    both = checker(spec(("s0", 3), "3, 1"), spec((5, "s0"), "s0, 1"))
    both.plan_calls(plan("x", y=""))
    assert [spec.name for spec in both.signature.inputs] == ["x", "y"]
    values = [np.zeros((4, 3), np.float32), np.zeros((5, 6), np.float32)]
    message = (
        "kwargs['y']: dimension 1 is 6, but must be 4, as dimension 0 of args[0] (x) is 4: "
        "float32 (5, s0) and float32 (s0, 3) share s0"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        both.repair(1, values)
    with pytest.raises(
        InputError, match="dimension 1 is 3, but must be 2, as dimension 0 of input 0"
    ):
        checker(spec(("s0", "s0"), "s0, 1")).repair(0, [np.zeros((2, 3), np.float32)])


def test_what_can_be_repaired_is():
    both = checker(*[spec(("s0", 6), "6, 1")] * 2)
    repaired = both.repair(1, [VALUES, np.asfortranarray(VALUES)])
    np.testing.assert_array_equal(repaired, VALUES)
    assert repaired.flags.c_contiguous
    unknown = Checker(Signature(), "m.pt2")
    assert unknown.repair(0, [VALUES.T]).flags.c_contiguous
    with pytest.raises(InputTypeError, match=r"^input 0: expected an array, any dtype"):
        unknown.repair(0, [[1]])


@pytest.mark.parametrize(
    ("size", "rows", "ranges", "words"),
    [
        ("n", 5, (1, 4), r"dimension 0 is 5, but must be in 1\.\.4 \(n\): float32 \(n, 6\)"),
        ("n", 0, (1, None), "dimension 0 is 0, but must be at least 1"),
        ("2*n + 1", 11, (0, 4), r"dimension 0 is 11, but must be in 1\.\.9 \(2\*n \+ 1\)"),
        ("9 - n", 1, (2, 4), r"dimension 0 is 1, but must be in 5\.\.7"),
        ("2*n", 5, (0, None), r"dimension 0 is 5, but must be 2\*n for some n"),
    ],
)
def test_a_size_out_of_its_range_is_refused(size, rows, ranges, words):
    one = checker(spec((size, 6), "6, 1"), ranges={"n": ranges})
    with pytest.raises(InputError, match=words):
        one.repair(0, [np.zeros((rows, 6), np.float32)])


def test_a_range_that_is_not_certain_warns_and_passes():
    one = checker(spec(("n", 6), "6, 1"), ranges={"n": (2, 8)}, enforced=False)
    with pytest.warns(UserWarning, match=r"m\.pt2: input 0: dimension 0 is 1.*2\.\.8.*narrower"):
        assert one.repair(0, [VALUES[:1]]) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.repair(0, [VALUES])


def test_a_value_out_of_its_range_is_named_with_its_place():
    index = spec((2, 3), "3, 1", "int64", "index", values=(0, 9))
    with pytest.raises(
        InputError, match=r"^input 0: expected values in 0\.\.9, .* got 10 at \[1, 2"
    ):
        checker(index).refuse_values(0, [np.array([[0, 1, 2], [3, 4, 10]])])
    index = spec((3,), "1", "int32", values=(Dim("-1*n"), Dim("n - 1")))
    table = spec(("n", 6), "6, 1", name="table")
    with pytest.raises(InputError, match=r"expected values in -4\.\.3, .* got -5 at \[0\]"):
        checker(index, table).refuse_values(0, [np.array([-5, 3, 4], np.int32), VALUES])


def test_constants_are_checked_and_left_out():
    both = checker(spec((4, 6), "6, 1"), ConstantSpec("n", 3))
    flatten = both.plan_calls(plan("x", n=""))
    assert flatten((VALUES,), {"n": 3}) == [VALUES]
    assert flatten((), {"n": 3, "x": VALUES}) == [VALUES]
    with pytest.raises(InputError, match=r"^kwargs\['n'\]: the model was exported with 3, got 4"):
        flatten((VALUES,), {"n": 4})
    with pytest.raises(InputTypeError, match=r"^args\[0\] \(x\): expected an array"):
        both.repair(0, flatten((3,), {"n": 3}))


def test_constants_that_are_not_recorded_are_ignored_with_one_warning():
    one = checker(spec((4, 6), "6, 1"))
    flatten = one.plan_calls(plan("x", "n"))
    with pytest.warns(UserWarning, match="does not record them: what is passed is ignored"):
        assert flatten((VALUES, 3), {}) == [VALUES]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert flatten((VALUES, 4), {}) == [VALUES]
        with pytest.raises(InputError, match=r"takes 1 arrays, got 2; no arrays: none"):
            flatten((VALUES, VALUES), {})
