"""What `plan` says of arrays, and that calls do what it says."""

from __future__ import annotations

import numpy as np
import pytest

import aoti

VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def misaligned(array):
    return np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)


@pytest.mark.parametrize(
    ("array", "action", "reason"),
    [
        (VALUES, "shared", ""),
        (VALUES[1:2], "shared", ""),
        (VALUES[:0], "shared", ""),
        (VALUES[:, :1][:1], "shared", ""),
        (read_only(VALUES), "shared", ""),
        (VALUES.T, "copied", r"its strides are (4, 24) bytes, and the model reads (16, 4)"),
        (VALUES[:, ::2], "copied", "strides"),
        (VALUES[::-1], "copied", "its strides are (-24, 4) bytes"),
        (np.broadcast_to(VALUES[:1], (3, 6)), "copied", "its strides are (0, 4) bytes"),
        (VALUES.astype(">f4"), "copied", "its bytes are in the other order"),
        (misaligned(VALUES), "copied", "it is not aligned to 4 bytes"),
        (VALUES.view(np.matrix), "shared", ""),
        (VALUES.astype("f8"), "refused", "args[0] (x): expected float32 (n, m), got float64"),
        (VALUES[0], "refused", "args[0] (x): expected 2 dimensions"),
        (np.ma.masked_array(VALUES), "refused", "a model does not take masks"),
        ([[1.0]], "refused", "expected"),
    ],
)
def test_a_call_does_what_the_plan_says(more, array, action, reason):
    if action == "refused" and isinstance(array, list):
        with pytest.raises(aoti.InputTypeError):
            more.plan(array)  # a container where an array was exported is another structure
        return
    (plan,) = more.plan(array)
    assert (plan.path, plan.action) == ("args[0] (x)", action)
    assert reason in plan.reason
    if action == "refused":
        with pytest.raises(aoti.InputError) as error:
            more(array)
        assert str(error.value) == plan.reason
        return
    same, plus = more(array)
    np.testing.assert_array_equal(same, array)
    np.testing.assert_array_equal(plus, array + np.float32(1))
    assert np.shares_memory(same, array) == (action == "shared" and array.size > 0)


def test_every_input_has_its_own_plan(packages):
    x, y = np.ones((3, 3), np.float32), np.ones((3, 5), np.float32)
    with aoti.load(packages / "shared.pt2") as model:
        plans = model.plan(x.T.copy().T, y[:, ::-1])
        assert [plan.action for plan in plans] == ["copied", "copied"]
        plans = model.plan(x.astype("f8"), y)
        assert [plan.action for plan in plans] == ["refused", "shared"]
        plans = model.plan(x, y[:2])
        assert [plan.action for plan in plans] == ["shared", "refused"]
        assert "dimension 0 is 2, but must be 3" in plans[1].reason
        with pytest.raises(aoti.InputError, match="missing argument 'y'"):
            model.plan(x)
    assert str(plans[0]) == "args[0] (x): shared"


def test_what_the_model_writes_into_is_never_copied(packages):
    x, y = np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)
    with aoti.load(packages / "inplace.pt2") as model:
        assert [plan.action for plan in model.plan(x, np.asfortranarray(y))] == ["shared", "copied"]
        for wrong in (read_only(x), np.asfortranarray(x), x[::-1], x.astype(">f4")):
            assert model.plan(wrong, y)[0].action == "refused"
        assert x.max() == 0  # nothing ran
