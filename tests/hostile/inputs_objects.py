"""What is no array, what claims to be one, and arrays of other libraries."""

from __future__ import annotations

import array
import collections
import ctypes
import pathlib
from typing import Any

import numpy as np
from runner import Input, bad, right

from aoti import InputError, InputTypeError


class Raising:
    """Looks like an array to whoever asks for one, and raises for every question."""

    def __init__(self, error: type[BaseException] = RuntimeError) -> None:
        self._error = error

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self._error("no array today")

    __len__ = __iter__ = __getitem__ = __float__ = __index__ = __array__  # type: ignore[assignment]
    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __array__  # type: ignore[assignment]
    __dlpack__ = __array__


class RaisingClass:
    """Says nothing of what it is."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class today")


class NotAnArray:
    """Says that it is an array."""

    __class__ = np.ndarray  # type: ignore[assignment]


class Interface:
    """An `__array_interface__`, true but for the changes."""

    def __init__(self, kept: Any, **changes: Any) -> None:
        self.kept = kept
        self.__array_interface__ = {**kept.__array_interface__, **changes}


class WithStruct(Interface):
    """An `__array_interface__` beside what numpy would rather read."""

    __array_struct__ = "no capsule"


class DLTensor(ctypes.Structure):
    """A DLManagedTensor, to its last field."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
CAPSULE = b"dltensor"


def int64s(values: Any) -> Any:
    return (ctypes.c_int64 * len(values))(*values) if values else None


class Capsule:
    """An array of DLPack over a float32 array, true but for the changes."""

    def __init__(
        self,
        kept: np.ndarray,
        *,
        device: Any = (1, 0),
        shape: Any = None,
        strides: Any = None,
        **changes: Any,
    ) -> None:
        self.kept, self.device = kept, device
        self.shape = int64s(kept.shape if shape is None else shape)
        self.strides = int64s([n // 4 for n in kept.strides] if strides is None else strides)
        told = {"data": kept.ctypes.data, "ndim": kept.ndim, "code": 2, "bits": 32, "lanes": 1}
        self.managed = DLTensor(**{"device_type": 1, **told, **changes})
        self.managed.shape = self.shape and ctypes.addressof(self.shape)
        self.managed.strides = self.strides and ctypes.addressof(self.strides)

    def __dlpack_device__(self) -> Any:
        return self.device

    def __dlpack__(self) -> Any:
        return new_capsule(ctypes.addressof(self.managed), CAPSULE, None)


class Sub(np.ndarray):
    """A subclass that lies about all that Python can ask."""

    @property
    def shape(self) -> Any:
        return (3, 10)

    @property
    def dtype(self) -> Any:
        return np.dtype("f4")

    @property
    def ndim(self) -> Any:
        return 2

    def __array_finalize__(self, _: Any) -> None:
        pass


class RaisingSub(np.ndarray):
    """A subclass that raises for all that Python can ask."""

    @property
    def shape(self) -> Any:
        raise RuntimeError("no shape today")

    dtype = ctypes = flags = ndim = size = shape  # type: ignore[assignment]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array today")


def passing(make: Any) -> Any:
    """A call with what `make` gives for the good array."""
    return lambda m, g: m(make(g.x))


def tensor(make: Any, use: Any = lambda m, x, made: m(made)) -> Any:
    """The same with a torch tensor; torch comes after aoti into the process."""

    def call(m: Any, g: Any) -> Any:
        import torch

        return use(m, g.x, make(torch, torch.from_numpy(g.x.copy())))

    return call


def freed(torch: Any, x: Any) -> Any:
    """A tensor whose storage is gone."""
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x


def generator(x: Any) -> Any:
    yield from x


WANTED = "args[0] (x): expected an array, float32 (batch, 10)"
UNREADABLE = "the process cannot read the memory that it names"
SHARED = "inputs_objects.Capsule cannot be shared"
BEYOND = "its elements lie beyond all addresses"

PLAIN = (
    bad("None", "mlp", passing(lambda x: None), InputTypeError, WANTED, "got NoneType"),
    bad("an int", "mlp", passing(lambda x: 1), InputTypeError, WANTED, "got int"),
    bad("a float", "mlp", passing(lambda x: 1.0), InputTypeError, WANTED, "got float"),
    bad("a bool", "mlp", passing(lambda x: True), InputTypeError, WANTED, "got bool"),
    bad("a complex", "mlp", passing(lambda x: 1j), InputTypeError, WANTED, "got complex"),
    bad("a huge int", "mlp", passing(lambda x: 1 << 10_000), InputTypeError, WANTED, "got int"),
    bad("text", "mlp", passing(lambda x: "rows"), InputTypeError, WANTED, "got str"),
    bad("bytes", "mlp", passing(lambda x: x.tobytes()), InputTypeError, "got uint8 (120,)"),
    bad("a bytearray", "mlp", passing(lambda x: bytearray(120)), InputTypeError, "got uint8"),
    bad("nested lists", "mlp", passing(lambda x: x.tolist()), InputTypeError,
        "args[0]: expected one array, got a list of 3"),
    bad("a list of arrays", "mlp", passing(lambda x: [x]), InputTypeError, "got a list of 1"),
    bad("an empty list", "mlp", passing(lambda x: []), InputTypeError, "got a list of 0"),
    bad("a tuple of arrays", "mlp", passing(lambda x: tuple(x)), InputTypeError, "tuple of 3"),
    bad("a dict", "mlp", passing(lambda x: {"x": x}), InputTypeError, "got a dict with keys 'x'"),
    bad("a set", "mlp", passing(lambda x: {1}), InputTypeError, WANTED, "got set"),
    bad("a deque", "mlp", passing(collections.deque), InputTypeError, "got a deque of 3"),
    bad("a range", "mlp", passing(lambda x: range(10)), InputTypeError, WANTED, "got range"),
    bad("a generator", "mlp", passing(generator), InputTypeError, WANTED, "got generator"),
    bad("an iterator", "mlp", passing(iter), InputTypeError, WANTED, "got iterator"),
    bad("a slice", "mlp", passing(lambda x: slice(3)), InputTypeError, WANTED, "got slice"),
    bad("Ellipsis", "mlp", passing(lambda x: ...), InputTypeError, WANTED, "got ellipsis"),
    bad("a path", "mlp", passing(lambda x: pathlib.Path("x.npy")), InputTypeError, "PosixPath"),
    bad("a function", "mlp", passing(lambda x: print), InputTypeError, WANTED, "got builtin"),
    bad("the type of arrays", "mlp", passing(lambda x: np.ndarray), InputTypeError, "got type"),
    bad("the model itself", "mlp", lambda m, g: m(m), InputTypeError, WANTED, "AOTIModel"),
    bad("a dtype", "mlp", passing(lambda x: x.dtype), InputTypeError, WANTED, "Float32DType"),
    bad("numpy's flat iterator", "mlp", passing(lambda x: x.flat), InputTypeError, "flatiter"),
    right("a memoryview", "mlp", passing(lambda x: memoryview(x.copy()))),
    bad("an array.array", "mlp", passing(lambda x: array.array("f", x.ravel())), InputError,
        "expected 2 dimensions", "got float32 (30,)"),
    bad("a numpy scalar", "mlp", passing(lambda x: x[0, 0]), InputError, "expected 2 dimensions"),
    bad("a numpy void", "mlp", passing(lambda x: np.void(b"abcd")), InputTypeError, "no dtype for"),
    bad("masked", "mlp", passing(lambda x: np.ma.masked_array(x, x > 0)), InputTypeError,
        "args[0] (x)", "does not take masks", ".filled("),
    bad("masked without a mask", "mlp", passing(np.ma.masked_array), InputTypeError, ".filled("),
    bad("the masked constant", "mlp", passing(lambda x: np.ma.masked), InputTypeError, ".filled("),
)  # fmt: skip

LIARS = (
    bad("raises for every question", "mlp", passing(lambda x: Raising()), InputTypeError,
        "Raising"),
    bad("raises KeyError", "mlp", passing(lambda x: Raising(KeyError)), InputTypeError, "Raising"),
    bad("raises MemoryError", "mlp", passing(lambda x: Raising(MemoryError)), InputTypeError,
        "Raising"),
    bad("raises for its class", "mlp", passing(lambda x: RaisingClass()), InputTypeError,
        "RaisingClass"),
    bad("says it is an array", "mlp", passing(lambda x: NotAnArray()), InputTypeError,
        "NotAnArray"),
    right("a true interface", "mlp", passing(lambda x: Interface(x))),
    bad("an interface to nowhere", "mlp", passing(lambda x: Interface(x, data=(0, False))),
        InputTypeError, "cannot be read"),
    bad("an interface without end", "mlp", passing(lambda x: Interface(x, shape=(1 << 40, 10))),
        InputTypeError, UNREADABLE),
    bad("an interface whose strides overflow", "mlp",
        passing(lambda x: Interface(x, strides=(2**62, 2**61))), InputTypeError, UNREADABLE),
    bad("an interface of the first page", "mlp", passing(lambda x: Interface(x, data=(8, False))),
        InputTypeError, UNREADABLE),
    bad("an interface of the last page", "mlp",
        passing(lambda x: Interface(x, data=(2**64 - 4, False))), InputTypeError, UNREADABLE),
    bad("an interface before all addresses", "mlp",
        passing(lambda x: Interface(x, strides=(-(2**61), 4))), InputTypeError, UNREADABLE),
    bad("an interface of an address that is none", "mlp",
        passing(lambda x: Interface(x, data=(2**80, False))), InputTypeError, "cannot be read"),
    bad("an interface of a negative size", "mlp",
        passing(lambda x: Interface(x, shape=(-3, 10))), InputTypeError, "cannot be read"),
    bad("an interface that is too big", "mlp",
        passing(lambda x: Interface(x, shape=(1 << 40, 1 << 40))), InputTypeError, "too big"),
    bad("an interface of objects", "mlp", passing(lambda x: Interface(x, typestr="|O8")),
        InputTypeError, "Python objects"),
    bad("an interface over a short buffer", "mlp",
        passing(lambda x: Interface(x, data=bytearray(8))), InputTypeError, "size of buffer"),
    bad("an interface beyond its buffer", "mlp",
        passing(lambda x: Interface(x, data=bytearray(120), offset=2**62)), InputTypeError,
        "cannot be read"),
    bad("an interface before its buffer", "mlp",
        passing(lambda x: Interface(x, data=bytearray(120), offset=-500)), InputTypeError,
        "cannot be read"),
    right("an interface over a buffer", "mlp",
          passing(lambda x: Interface(x, data=b"abcd" + x.tobytes(), offset=4))),
    right("a reversed interface", "mlp",
          passing(lambda x: Interface(x[::-1])), expected=lambda g: g.expected[::-1]),
    right("an interface beside a false struct", "mlp", passing(WithStruct)),
    bad("an interface that is none", "mlp", passing(lambda x: Interface(x, typestr=None)),
        InputTypeError, "Interface"),
    bad("a subclass that lies about shape and dtype", "mlp",
        passing(lambda x: np.zeros(7, "i8").view(Sub)), InputTypeError, "got int64 (7,)"),
    bad("a subclass that raises", "mlp", passing(lambda x: np.zeros(7, "i8").view(RaisingSub)),
        InputTypeError, "got int64 (7,)"),
    right("a subclass that raises but is right", "mlp", passing(lambda x: x.view(RaisingSub))),
    right("a subclass that lies but is right", "mlp", passing(lambda x: x.view(Sub))),
    right("a matrix", "mlp", passing(lambda x: x.view(np.matrix))),
    right("a record array", "mlp", passing(lambda x: x.view(np.recarray))),
    right("a chararray of nothing but a view back", "mlp",
          passing(lambda x: x.view("S4").view(np.float32))),
)  # fmt: skip

DLPACK = (
    right("a capsule", "mlp", passing(Capsule)),
    right("a capsule without strides", "mlp", passing(lambda x: Capsule(x, strides=()))),
    right("a capsule of reversed rows", "mlp", passing(lambda x: Capsule(x[::-1])),
          expected=lambda g: g.expected[::-1]),
    bad("a capsule of no sizes", "mlp", passing(lambda x: Capsule(x, shape=())), InputTypeError,
        SHARED, "its shape pointer is null"),
    bad("a capsule of -1 dimensions", "mlp", passing(lambda x: Capsule(x, ndim=-1)),
        InputTypeError, SHARED, "its number of dimensions is not in 0..64"),
    bad("a capsule of 65 dimensions", "mlp", passing(lambda x: Capsule(x, ndim=65)),
        InputTypeError, SHARED, "its number of dimensions"),
    bad("a capsule of 2**31 - 1 dimensions", "mlp",
        passing(lambda x: Capsule(x, ndim=2**31 - 1)), InputTypeError, SHARED, "dimensions"),
    bad("a capsule of a negative size", "mlp", passing(lambda x: Capsule(x, shape=(3, -10))),
        InputTypeError, SHARED, "a size is negative"),
    bad("a capsule that is too big", "mlp",
        passing(lambda x: Capsule(x, shape=(2**62, 2**62), strides=(0, 0))), InputTypeError,
        SHARED, BEYOND),
    bad("a capsule whose strides overflow", "mlp",
        passing(lambda x: Capsule(x, strides=(2**62, 1))), InputTypeError, SHARED, BEYOND),
    bad("a capsule that reaches before all addresses", "mlp",
        passing(lambda x: Capsule(x, strides=(-(2**59), 1))), InputTypeError, SHARED, BEYOND),
    bad("a capsule of a huge offset", "mlp",
        passing(lambda x: Capsule(x, byte_offset=2**64 - 4)), InputTypeError, SHARED, BEYOND),
    bad("a capsule without memory", "mlp", passing(lambda x: Capsule(x, data=None)),
        InputTypeError, SHARED, "its data pointer is null"),
    bad("a reversed capsule without memory", "mlp",
        passing(lambda x: Capsule(x[::-1], data=None)), InputTypeError, SHARED, "null"),
    bad("a capsule of no lanes", "mlp", passing(lambda x: Capsule(x, lanes=0)), InputTypeError,
        SHARED, "no such dtype"),
    bad("a capsule of no known device", "mlp",
        passing(lambda x: Capsule(x, device_type=-(2**31))), InputTypeError, SHARED, "device"),
    bad("an array on a device without end", "mlp",
        passing(lambda x: Capsule(x, device=(2**70, 0))), InputError, "lies on DLPack device"),
    right("an array on a device of too many digits", "mlp",
          passing(lambda x: Capsule(x, device=(10**5000, 0)))),
    right("an array on a device that is none", "mlp",
          passing(lambda x: Capsule(x, device=([], None)))),
    right("an array on a device that is no pair", "mlp",
          passing(lambda x: Capsule(x, device=None))),
)  # fmt: skip

# Importing torch takes two seconds of each of these processes.
TORCH = (
    right("a torch tensor", "mlp", tensor(lambda t, x: x)),
    bad("a meta tensor", "mlp", tensor(lambda t, x: x.to("meta")), InputTypeError,
        "torch.Tensor on meta cannot be shared"),
    bad("a tensor whose storage was freed", "mlp", tensor(freed), InputError, "null"),
    bad("an output into a tensor whose storage was freed", "mlp",
        tensor(lambda t, x: freed(t, x[:, :1]), lambda m, x, out: m.run([x], out=[out])),
        InputError, "out[0]", "null"),
    right("a parameter", "mlp", tensor(lambda t, x: t.nn.Parameter(x))),
    bad("a sparse tensor", "mlp", tensor(lambda t, x: x.to_sparse()), InputTypeError, "Tensor"),
    bad("a conjugated tensor's numpy", "mlp",
        tensor(lambda t, x: t.complex(x, x).conj().resolve_conj().numpy()), InputTypeError,
        "got complex64"),
    right("a tensor's numpy", "mlp", tensor(lambda t, x: x.t().contiguous().t().numpy())),
)  # fmt: skip

ROWS: tuple[Input, ...] = (*PLAIN, *LIARS, *DLPACK, *TORCH)
