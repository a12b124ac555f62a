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


def fit(wanted: TensorSpec, value):
    """What a run would pass on for the only input of a model."""
    (array,) = checker(wanted).fit([value])
    return array


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
        both.fit(values)
    with pytest.raises(
        InputError, match="dimension 1 is 3, but must be 2, as dimension 0 of input 0"
    ):
        checker(spec(("s0", "s0"), "s0, 1")).fit([np.zeros((2, 3), np.float32)])


def test_what_can_be_converted_is():
    both = checker(*[spec(("s0", 6), "6, 1")] * 2)
    same, converted = both.fit([VALUES, np.asfortranarray(VALUES)])
    assert same is VALUES
    np.testing.assert_array_equal(converted, VALUES)
    assert converted.flags.c_contiguous
    unknown = Checker(Signature(), "m.pt2")
    assert unknown.fit([VALUES.T])[0].flags.c_contiguous
    with pytest.raises(InputTypeError, match=r"^input 0: expected an array, any dtype"):
        unknown.fit([[1]])


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
        one.fit([np.zeros((rows, 6), np.float32)])


def test_a_range_that_is_not_certain_warns_and_passes():
    one = checker(spec(("n", 6), "6, 1"), ranges={"n": (2, 8)}, enforced=False)
    with pytest.warns(UserWarning, match=r"m\.pt2: input 0: dimension 0 is 1.*2\.\.8.*narrower"):
        assert one.fit([VALUES[:1]]) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.fit([VALUES])


def test_a_value_out_of_its_range_is_named_with_its_place():
    index = spec((2, 3), "3, 1", "int64", "index", values=(0, 9))
    with pytest.raises(
        InputError, match=r"^input 0: expected values in 0\.\.9, .* got 10 at \[1, 2"
    ):
        checker(index).fit([np.array([[0, 1, 2], [3, 4, 10]])])
    index = spec((3,), "1", "int32", values=(Dim("-1*n"), Dim("n - 1")))
    table = spec(("n", 6), "6, 1", name="table")
    with pytest.raises(InputError, match=r"expected values in -4\.\.3, .* got -5 at \[0\]"):
        checker(index, table).fit([np.array([-5, 3, 4], np.int32), VALUES])


def test_constants_are_checked_and_left_out():
    both = checker(spec((4, 6), "6, 1"), ConstantSpec("n", 3))
    flatten = both.plan_calls(plan("x", n=""))
    assert flatten((VALUES,), {"n": 3}) == [VALUES]
    assert flatten((), {"n": 3, "x": VALUES}) == [VALUES]
    with pytest.raises(InputError, match=r"^kwargs\['n'\]: the model was exported with 3, got 4"):
        flatten((VALUES,), {"n": 4})
    with pytest.raises(InputTypeError, match=r"^args\[0\] \(x\): expected an array"):
        both.fit(flatten((3,), {"n": 3}))


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


# -- arrays that do not fit ----------------------------------------------------------------------


class Torchlike:
    def numpy(self): ...

    def __dlpack__(self): ...


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([1.0, 2.0], InputTypeError, r"got list\. Pass np\.asarray\(\.\.\., 'float32'\)"),
        (None, InputTypeError, "got NoneType"),
        (1.0, InputTypeError, "got float"),
        (Torchlike(), InputTypeError, r"Torchlike cannot be shared: .*\. Pass its \.numpy\(\)"),
        (np.zeros((2, 3)), InputTypeError, r"got float64 \(2, 3\).*astype\('float32'\)"),
        (np.zeros((2, 3), complex), InputTypeError, "got complex128"),
        (np.zeros((2, 3), object), InputTypeError, "got object .* torch has no dtype for"),
        (np.zeros((2, 3), "U5"), InputTypeError, "torch has no dtype for"),
        (np.zeros((2, 3), "M8[s]"), InputTypeError, "torch has no dtype for"),
        (np.zeros((2, 3), [("a", "f4")]), InputTypeError, "torch has no dtype for"),
        (np.zeros((2, 3), np.longdouble), InputTypeError, "torch has no dtype for"),
        (np.float32(1), InputError, r"expected 2 dimensions.*got float32 \(\)"),
        (np.zeros(3, np.float32), InputError, r"expected 2 dimensions.*got float32 \(3,\)"),
        (np.zeros((2, 4), np.float32), InputError, "dimension 1 must be 3, not 4"),
        (np.zeros((0, 0), np.float32), InputError, "dimension 1 must be 3, not 0"),
    ],
)
def test_each_refusal_says_what_is_wanted_what_came_and_what_to_do(value, error, words):
    with pytest.raises(error, match=words) as caught:
        fit(spec(("s0", 3), "3, 1"), value)
    assert str(caught.value).startswith("input 0: expected ")
    assert "float32 (s0, 3)" in str(caught.value)


FORMS = {
    "as it is": VALUES,
    "transposed": np.ascontiguousarray(VALUES.T).T,
    "Fortran": np.asfortranarray(VALUES),
    "negative strides": np.ascontiguousarray(VALUES[::-1, ::-1])[::-1, ::-1],
    "strided": np.repeat(VALUES, 2, axis=1)[:, ::2],
    "byte-swapped": VALUES.astype(VALUES.dtype.newbyteorder()),
    "misaligned": np.frombuffer(b"x" + VALUES.tobytes(), np.uint8)[1:].view("f4").reshape(4, 6),
    "read-only": np.frombuffer(VALUES.tobytes(), "f4").reshape(4, 6),
    "broadcast": np.broadcast_to(np.float32(3), (4, 6)),
    "empty": np.zeros((0, 6), np.float32),
    "one row": VALUES[:1],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strides", ["6, 1", "1, s0", "14, 2"])
def test_any_form_becomes_the_one_that_is_wanted(form, strides):
    value = FORMS[form]
    rows = len(value) if strides == "14, 2" else "s0"
    wanted = spec((rows, 6), strides)
    array = fit(wanted, value)
    np.testing.assert_array_equal(array, value)
    assert array.dtype.isnative
    assert array.flags.aligned
    steps = [eval(step, {"s0": max(len(value), 1)}) * 4 for step in strides.split(", ")]
    for size, step, expected in zip(array.shape, array.strides, steps, strict=True):
        assert array.size == 0 or size == 1 or step == expected


def test_what_fits_is_not_copied():
    assert np.shares_memory(fit(spec(("s0", 6), "6, 1"), VALUES), VALUES)
    assert np.shares_memory(fit(spec((6, 4), "1, 6"), VALUES.T), VALUES)


def test_channels_last_is_copied_to_channels_last():
    image = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    for wanted in (spec(("n", 3, "h", 5), "15*h, 1, 15, 3"), spec(image.shape, "60, 1, 15, 3")):
        array = fit(wanted, image)
        np.testing.assert_array_equal(array, image)
        assert array.strides == (240, 4, 60, 12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
def test_an_input_of_unknown_shape_is_made_contiguous(shape):
    value = np.asarray(np.arange(24, dtype=">i2")[: int(np.prod(shape))].reshape(shape).T)
    array = fit(TensorSpec("x", None, None), value)
    np.testing.assert_array_equal(array, value)
    assert array.flags.c_contiguous
    assert array.dtype == np.int16


@pytest.mark.parametrize("strides", ["0, 1", "1, 1", "2, 1"])
def test_elements_that_share_memory_cannot_be_copied_to(strides):
    wanted = spec((4, 6), strides)
    with pytest.raises(InputError, match=f"^input 0: .*share memory .strides {strides}"):
        fit(wanted, VALUES)


@pytest.mark.parametrize("value", [np.float32(2.5), np.asarray(2.5, np.float32)])
def test_scalars_of_numpy_are_arrays(value):
    array = fit(spec((), ""), value)
    assert isinstance(array, np.ndarray)
    assert (array.shape, array.item()) == ((), 2.5)


def test_an_index_out_of_range_is_told_for_scalars_and_for_arrays_of_any_library():
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return 1, 0

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

    scalar = TensorSpec("index", "int64", (), (), "cpu", values=(0, 9))
    index = spec((3,), "1", "int64", "index", values=(0, 9))
    for value in (np.array(10), Foreign(np.array(10))):
        with pytest.raises(InputError, match=r"expected values in 0\.\.9, .* got 10 at \[\]"):
            fit(scalar, value)
    with pytest.raises(InputError, match=r"expected values in 0\.\.9, .* got -1 at \[2\]"):
        fit(index, Foreign(np.array([0, 9, -1])))
