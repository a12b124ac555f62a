"""`aoti.Tensor`: what it tells, what it shares, how long it lives."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref

import numpy as np
import pytest

import aoti

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def tensor(array=VALUES):
    return aoti.Tensor.from_dlpack(Wrapped(array))


class Wrapped:
    """numpy's own DLPack, without being numpy's array."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


def name(capsule):
    return repr(capsule).split('"')[1]


def test_it_tells_what_it_is():
    t = tensor()
    assert (t.dtype, t.shape, t.strides, t.nbytes) == ("float32", (3, 4), (4, 1), 48)
    assert (t.device, t.readonly, len(t)) == ("cpu", False, 3)
    assert t.data_ptr == VALUES.ctypes.data
    assert t.__dlpack_device__() == (1, 0)
    assert repr(tensor(np.array([1.5, 2]))) == "aoti.Tensor([1.5 2. ], dtype=float64, shape=(2,))"
    assert tensor(VALUES[:, ::2]).strides == (4, 2)
    scalar = tensor(np.array(3))
    assert (scalar.shape, scalar.strides) == ((), ())
    with pytest.raises(TypeError, match="without dimensions"):
        len(scalar)
    assert tensor(VALUES[:0]).shape == (0, 4)


def test_it_is_made_by_models_and_from_dlpack_only():
    with pytest.raises(TypeError, match="from_dlpack"):
        aoti.Tensor()
    empty = aoti.Tensor.__new__(aoti.Tensor)
    assert repr(empty) == "<aoti.Tensor, never filled>"
    for use in (lambda: empty.shape, empty.numpy, empty.__dlpack__, lambda: memoryview(empty)):
        with pytest.raises(TypeError, match="never filled"):
            use()
    with pytest.raises(TypeError, match="no __dlpack__"):
        aoti.Tensor.from_dlpack([1])
    t = tensor()
    assert aoti.Tensor.from_dlpack(t) is t


def test_everything_shares_its_memory():
    t = tensor(VALUES.copy())
    views = [t.numpy(), np.asarray(t), np.from_dlpack(t), np.asarray(memoryview(t))]
    for view in views:
        assert view.ctypes.data == t.data_ptr
        assert view.shape == (3, 4)
        np.testing.assert_array_equal(view, VALUES)
    views[0][0, 0] = 7
    assert np.from_dlpack(t)[0, 0] == 7
    assert memoryview(t).format == "f"
    assert np.asarray(t, "f8").dtype == np.float64
    assert np.array(t, copy=True).ctypes.data != t.data_ptr
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.asarray(t, "f8", copy=False)
    strided = tensor(VALUES[:, ::2])
    np.testing.assert_array_equal(strided.numpy(), VALUES[:, ::2])
    np.testing.assert_array_equal(np.asarray(memoryview(strided)), VALUES[:, ::2])


def test_its_memory_lives_as_long_as_any_view():
    array = VALUES.copy()
    died = weakref.ref(array)
    t = tensor(array)
    view, capsule, buffer = t.numpy(), t.__dlpack__(max_version=(1, 0)), memoryview(t)
    del array, t
    gc.collect()
    assert died() is not None
    del view
    assert died() is not None
    del capsule
    assert died() is not None
    buffer.release()
    assert died() is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (None, "dltensor"),
        ((0, 8), "dltensor"),
        ((1, 0), "dltensor_versioned"),
        ((2, 0), "dltensor_versioned"),
    ],
)
def test_capsules_are_of_the_version_that_the_caller_knows(version, expected):
    assert name(tensor().__dlpack__(max_version=version)) == expected


def test_dlpack_options():
    t = tensor()
    assert name(t.__dlpack__(dl_device=(1, 0), copy=False, stream=None)) == "dltensor"
    copied = np.from_dlpack(t, copy=True)
    assert copied.ctypes.data != t.data_ptr
    np.testing.assert_array_equal(copied, VALUES)
    with pytest.raises(BufferError, match="lies on the cpu"):
        t.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="no stream"):
        t.__dlpack__(stream=1)


def test_read_only_memory_stays_read_only():
    array = VALUES.copy()
    array.flags.writeable = False
    t = tensor(array)
    assert t.readonly
    assert "readonly" in repr(t)
    assert not t.numpy().flags.writeable
    assert not np.from_dlpack(t).flags.writeable
    assert memoryview(t).readonly
    assert np.from_dlpack(t, copy=True).flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        t.__dlpack__()
    assert name(t.__dlpack__(copy=True)) == "dltensor"


def test_capsules_that_nobody_takes_are_freed():
    for version in (None, (1, 0)):
        array = VALUES.copy()
        died = weakref.ref(array)
        capsule = tensor(array).__dlpack__(max_version=version)
        del array
        assert died() is not None
        del capsule
        assert died() is None


def test_it_outlives_the_model(packages, rows):
    with aoti.load(packages / "mlp.pt2", outputs="dlpack") as model:
        out = model(rows)
        expected = model(rows, outputs="numpy").tolist()
    del model
    gc.collect()
    assert out.numpy().tolist() == expected


def test_copied_has_the_wanted_strides():
    copy = tensor().copied((1, 3))
    assert copy.strides == (1, 3)
    np.testing.assert_array_equal(copy.numpy(), VALUES)
    with pytest.raises(ValueError, match="2 strides"):
        tensor().copied((1,))


def test_views_may_be_dropped_by_any_thread():
    views = [np.from_dlpack(tensor(VALUES.copy())) for _ in range(1000)]
    workers = [threading.Thread(target=lambda: [views.pop() for _ in range(250)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert views == []


class API(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32 * 2), ("previous", ctypes.c_void_p)]
    _fields_ += [("functions", ctypes.c_void_p * 5)]


def test_its_c_functions_share_and_take_tensors():
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    api = API.from_address(get(aoti.Tensor.__dlpack_c_exchange_api__, b"dlpack_exchange_api"))
    assert api.version[0] == 1
    assert all(api.functions)
    share = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p))(
        api.functions[1]
    )
    take = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.py_object))(
        api.functions[2]
    )
    managed, made = ctypes.c_void_p(), ctypes.py_object()
    array = VALUES.copy()
    died = weakref.ref(array)
    t = tensor(array)
    assert share(t, ctypes.byref(managed)) == 0
    assert take(managed, ctypes.byref(made)) == 0
    assert made.value.data_ptr == t.data_ptr
    del t, array
    assert died() is not None
    ctypes.pythonapi.Py_DecRef(made)
    del made
    assert died() is None
    with pytest.raises(TypeError):
        share([1], ctypes.byref(managed))
