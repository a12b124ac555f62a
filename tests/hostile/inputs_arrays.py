"""Arrays that are not what a model takes, and arrays that only look so.

The first group is what the stock loader takes in silence: it computes garbage from them, or reads
out of bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from runner import Input, bad, right

from aoti import InputError, InputTypeError


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same, one byte off."""
    return np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)


def read_only(array: np.ndarray) -> np.ndarray:
    """The same, not to be written to."""
    array = array.copy()
    array.flags.writeable = False
    return array


def huge(rank: int = 2) -> np.ndarray:
    """2**40 elements over one: whoever copies it wants 4 TiB."""
    return as_strided(np.zeros(1, np.float32), (1 << 40, 10)[:rank], (0, 0)[:rank])


def as_dtype(dtype: Any) -> Any:
    return lambda m, g: m(np.ones((3, 10)).astype(dtype))


def of_shape(*shape: int) -> Any:
    return lambda m, g: m(np.ones(shape, np.float32))


def instead_of(name: str, dtype: str) -> Any:
    """A call of the model that takes every dtype, with one argument of another."""
    return lambda m, g: m(**{**g.kwargs, name: g.kwargs[name].real.astype(dtype)})


STOCK = (
    bad("float64", "mlp", as_dtype("f8"), InputTypeError,
        "args[0] (x)", "expected float32 (batch, 10)", "got float64 (3, 10)", ".astype('float32')"),
    bad("int32", "mlp", as_dtype("i4"), InputTypeError, "got int32", ".astype('float32')"),
    bad("bool", "mlp", as_dtype("?"), InputTypeError, "got bool", ".astype('float32')"),
    bad("complex64", "mlp", as_dtype("c8"), InputTypeError, "got complex64"),
    bad("float16", "mlp", as_dtype("f2"), InputTypeError, "got float16", ".astype('float32')"),
    bad("static dim smaller", "mlp", of_shape(3, 9), InputError,
        "args[0] (x)", "dimension 1 must be 10, not 9", "got float32 (3, 9)"),
    bad("static dim larger", "mlp", of_shape(3, 11), InputError, "dimension 1 must be 10, not 11"),
    bad("no dimensions", "mlp", of_shape(), InputError, "expected 2 dimensions", "got float32 ()"),
    bad("rank lower", "mlp", of_shape(10), InputError, "expected 2 dimensions", "(batch, 10)"),
    bad("rank higher", "mlp", of_shape(3, 10, 1), InputError, "expected 2 dimensions"),
    bad("shared dim", "shared", lambda m, g: m(g.x, g.y[:3]), InputError,
        "args[1] (y): dimension 0 is 3, but must be 4", "args[0] (x)", "share batch"),
    right("transposed", "mlp", lambda m, g: m(np.ascontiguousarray(g.x.T).T)),
    right("strided rows", "mlp", lambda m, g: m(np.repeat(g.x, 3, axis=0)[::3])),
    right("strided columns", "mlp", lambda m, g: m(np.repeat(g.x, 2, axis=1)[:, 1::2])),
    right("broadcast", "shared", lambda m, g: m(np.broadcast_to(g.x[:1], (4, 3)), g.y),
          expected=lambda g: g.x[:1] * g.y.sum(1, keepdims=True)),
    right("contiguous for channels-last", "layouts",
          lambda m, g: m(np.ascontiguousarray(g.x), g.y, g.z)),
    right("channels-last for contiguous", "alias", lambda m, g: m(np.asfortranarray(g.x))),
)  # fmt: skip

DTYPES = (
    bad("uint8 bytes of the right length", "mlp",
        lambda m, g: m(g.x.view(np.uint8)), InputTypeError, "got uint8 (3, 40)"),
    bad("int32 of the same width", "mlp", lambda m, g: m(g.x.view(np.int32)), InputTypeError,
        "got int32 (3, 10)"),
    bad("uint64 for int64", "lookup", lambda m, g: m(np.array([1, 2], np.uint64)), InputTypeError,
        "got uint64", ".astype('int64')"),
    bad("int32 for int64", "lookup", lambda m, g: m(g.x.astype("i4")), InputTypeError, "int32"),
    bad("float64 for an index", "lookup", lambda m, g: m(g.x.astype("f8")), InputTypeError,
        "expected int64", "got float64"),
    bad("bool for an index", "lookup", lambda m, g: m(g.x > 0), InputTypeError, "got bool"),
    bad("longdouble", "mlp", as_dtype(np.longdouble), InputTypeError, "torch has no dtype for"),
    bad("complex longdouble", "mlp", as_dtype(np.clongdouble), InputTypeError, "no dtype for"),
    bad("object", "mlp", as_dtype(object), InputTypeError, "got object", "no dtype for"),
    bad("object array of arrays", "mlp",
        lambda m, g: m(np.array([g.x, None], object)), InputTypeError, "got object (2,)"),
    bad("text", "mlp", as_dtype("U3"), InputTypeError, "no dtype for"),
    bad("bytes", "mlp", as_dtype("S4"), InputTypeError, "no dtype for"),
    bad("datetime", "mlp", lambda m, g: m(np.zeros((3, 10), "M8[s]")), InputTypeError, "datetime"),
    bad("timedelta", "mlp", lambda m, g: m(np.zeros((3, 10), "m8[D]")), InputTypeError, "timedel"),
    bad("void", "mlp", lambda m, g: m(np.zeros((3, 10), "V4")), InputTypeError, "no dtype for"),
    bad("structured of one float", "mlp",
        lambda m, g: m(g.x.view([("x", "f4")])), InputTypeError, "no dtype for"),
    bad("float16 for bfloat16's width", "dtypes", instead_of("int16", "f2"), InputTypeError,
        "kwargs['int16']", "got float16"),
    bad("int8 for bool", "dtypes", instead_of("bool", "i1"), InputTypeError, "kwargs['bool']"),
    bad("bool for uint8", "dtypes", instead_of("uint8", "?"), InputTypeError, "kwargs['uint8']"),
    bad("float64 for complex64", "dtypes", instead_of("complex64", "f8"), InputTypeError,
        "expected complex64 (2, 3)", "got float64"),
    bad("complex64 for float64", "dtypes", instead_of("float64", "c8"), InputTypeError,
        "expected float64 (2, 3)", "got complex64"),
    bad("uint16 for float16", "dtypes", instead_of("float16", "u2"), InputTypeError, "got uint16"),
    right("big-endian", "mlp", lambda m, g: m(g.x.astype(">f4"))),
    right("big-endian index", "lookup", lambda m, g: m(g.x.astype(">i8"))),
    right("C's long long", "lookup", lambda m, g: m(g.x.astype(np.longlong))),
    bad("big-endian float64", "mlp", as_dtype(">f8"), InputTypeError, "got float64"),
    right("bool of other bytes than 0 and 1", "tree",
          lambda m, g: m(*g.args, options=g.kwargs["options"],
                         mask=(g.kwargs["mask"] * np.uint8(1)).view(bool))),
)  # fmt: skip

SHAPES = (
    bad("batch above its range", "mlp", of_shape(1025, 10), InputError,
        "dimension 0 is 1025, but must be in 1..1024", "wider range for batch"),
    bad("batch below its range", "mlp", of_shape(0, 10), InputError, "must be in 1..1024"),
    bad("both sizes wrong", "mlp", of_shape(2000, 9), InputError, "dimension 1 must be 10"),
    bad("empty in a static dim", "mlp", of_shape(3, 0), InputError, "must be 10, not 0"),
    bad("sizes swapped", "mlp", lambda m, g: m(g.x.T), InputError, "dimension 1 must be 10, not 3"),
    bad("64 dimensions", "mlp", of_shape(*[1] * 64), InputError, "expected 2 dimensions"),
    bad("batch of the second alone", "shared", lambda m, g: m(g.x[:3], g.y), InputError,
        "args[1] (y): dimension 0 is 4, but must be 3"),
    bad("inputs swapped", "shared", lambda m, g: m(g.y, g.x), InputError, "args[0] (x)", "not 5"),
    bad("broadcastable but not the same", "shared", lambda m, g: m(g.x, g.y[:1]), InputError,
        "dimension 0 is 1, but must be 4"),
    bad("range and share", "shared", lambda m, g: m(g.x, np.ones((1025, 5), "f4")), InputError,
        "args[1] (y)"),
    bad("derived size one less", "derived", lambda m, g: m(g.x, g.y[:6]), InputError,
        "args[1] (y): dimension 0 is 6, but must be"),
    bad("derived size of another", "derived", lambda m, g: m(g.x[:2], g.y), InputError,
        "dimension 0 is 7, but must be 5"),
    bad("derived of nothing", "derived", lambda m, g: m(g.x[:0], g.y[:1]), InputError,
        "dimension 0 is 0, but must be in 2..100"),
    bad("derived below its range", "derived", lambda m, g: m(g.x[:1], g.y[:3]), InputError,
        "dimension 0 is 1, but must be in 2..100"),
    bad("derived above its range", "derived",
        lambda m, g: m(np.ones((101, 2), "f4"), np.ones((203, 2), "f4")), InputError, "2..100"),
    bad("one of fourteen is short", "dtypes",
        lambda m, g: m(**{**g.kwargs, "uint32": g.kwargs["uint32"][:1]}), InputError,
        "kwargs['uint32']", "dimension 0 must be 2, not 1"),
    bad("huge virtual batch", "mlp", lambda m, g: m(huge()), InputError, "1..1024"),
    bad("huge virtual rank 1", "mlp", lambda m, g: m(huge(1)), InputError, "expected 2 dimensions"),
    bad("huge index", "lookup", lambda m, g: m(as_strided(np.zeros(1, "i8"), (1 << 40,), (0,))),
        InputError, "1..1024"),
    bad("huge of a wrong dtype", "mlp", lambda m, g: m(huge().view("i4")), InputTypeError, "int32"),
    bad("huge and empty", "mlp",
        lambda m, g: m(as_strided(np.zeros(1, "f4"), (1 << 40, 0), (0, 0))), InputError, "not 0"),
    right("batch of one", "mlp", lambda m, g: m(g.x[:1]), expected=lambda g: g.expected[:1]),
    right("batch at its end", "mlp",
          lambda m, g: m(np.resize(g.x, (1024, 10))),
          expected=lambda g: np.resize(g.expected, (1024, 1)), repeats=50),
)  # fmt: skip

LAYOUTS = (
    right("reversed rows", "mlp", lambda m, g: m(g.x[::-1]), expected=lambda g: g.expected[::-1]),
    right("reversed twice", "mlp",
          lambda m, g: m(np.ascontiguousarray(g.x[::-1, ::-1])[::-1, ::-1])),
    right("zero strides", "mlp", lambda m, g: m(as_strided(g.x, (3, 10), (0, 4))),
          expected=lambda g: np.repeat(g.expected[:1], 3, axis=0)),
    right("overlapping rows", "shared",
          lambda m, g: m(g.x, as_strided(g.y, (4, 5), (4, 4))),
          expected=lambda g: g.x * [[g.y.ravel()[n : n + 5].sum()] for n in range(4)]),
    right("one row of odd strides", "mlp", lambda m, g: m(as_strided(g.x, (1, 10), (12345, 4))),
          expected=lambda g: g.expected[:1]),
    right("one row of huge strides", "mlp",
          lambda m, g: m(as_strided(g.x, (1, 10), (1 << 62, 4))),
          expected=lambda g: g.expected[:1]),
    right("misaligned", "mlp", lambda m, g: m(misaligned(g.x))),
    right("misaligned index", "lookup", lambda m, g: m(misaligned(g.x))),
    right("misaligned and big-endian", "mlp", lambda m, g: m(misaligned(g.x.astype(">f4")))),
    right("a field of records", "mlp",
          lambda m, g: m(np.stack([g.x, g.x], -1).view([("a", "f4"), ("b", "f4")])["b"][..., 0])),
    right("the real part of a complex array", "mlp", lambda m, g: m((g.x + 1j * g.x).real)),
    right("read-only", "mlp", lambda m, g: m(read_only(g.x))),
    right("both inputs one array", "shared",
          lambda m, g: m(np.resize(g.x, (4, 5))[:, :3], np.resize(g.x, (4, 5))),
          expected=lambda g: np.resize(g.x, (4, 5))[:, :3]
          * np.resize(g.x, (4, 5)).sum(1, keepdims=True)),
    right("inputs that overlap", "shared",
          lambda m, g: m(np.resize(g.y, 20)[:12].reshape(4, 3), g.y),
          expected=lambda g: g.y.ravel()[:12].reshape(4, 3) * g.y.sum(1, keepdims=True)),
    right("contiguous for all odd layouts", "layouts",
          lambda m, g: m(*(np.ascontiguousarray(a) for a in g.args))),
    right("fortran for all odd layouts", "layouts",
          lambda m, g: m(*(np.asfortranarray(a) for a in g.args))),
    right("reversed for all odd layouts", "layouts",
          lambda m, g: m(*(a[::-1] for a in g.args)),
          expected=lambda g: [a[::-1] for a in g.expected]),
    right("broadcast for all odd layouts", "layouts",
          lambda m, g: m(*(np.broadcast_to(a[:1], a.shape) for a in g.args)),
          expected=lambda g: [np.broadcast_to(a[:1], a.shape) for a in g.expected]),
    right("not a number", "alias", lambda m, g: m(np.full((3, 4), np.nan, "f4")),
          expected=lambda g: [np.full((3, 4), np.nan), np.full((4, 3), np.nan),
                              np.full((3, 4), np.nan), *g.expected[3:]]),
    right("signs, infinities and denormals", "alias",
          lambda m, g: m(np.array([[-0.0, np.inf, -np.inf, 1e-45]] * 3, "f4"))[:2],
          expected=lambda g: [np.array([[-0.0, np.inf, -np.inf, 1e-45]] * 3, "f4"),
                              np.array([[-0.0, np.inf, -np.inf, 1e-45]] * 3, "f4").T]),
    bad("read-only for what is written to", "inplace", lambda m, g: m(read_only(g.x), g.y),
        InputError, "args[0] (x)", "writes into this input", "writeable"),
    bad("transposed for what is written to", "inplace",
        lambda m, g: m(np.asfortranarray(g.x), g.y), InputError, "writes into this", "strides"),
    bad("reversed for what is written to", "inplace", lambda m, g: m(g.x.copy()[::-1], g.y),
        InputError, "writes into this"),
    bad("broadcast for what is written to", "inplace",
        lambda m, g: m(np.broadcast_to(g.x[:1], (3, 4)), g.y), InputError, "writes into this"),
    bad("big-endian for what is written to", "inplace",
        lambda m, g: m(g.x.astype(">f4"), g.y), InputError, "writes into this"),
    bad("misaligned for what is written to", "inplace",
        lambda m, g: m(misaligned(g.x), g.y), InputError, "writes into this"),
    right("read-only for what is only read", "inplace", lambda m, g: m(g.x.copy(), read_only(g.y))),
)  # fmt: skip

ROWS: tuple[Input, ...] = (*STOCK, *DTYPES, *SHAPES, *LAYOUTS)
