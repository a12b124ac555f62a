"""Calls the same function of compiled code in libtorch and in the native engine, over generated
operands, and compares the results.

AOTI_CONFORMANCE is the factor of the number of cases (default: 1).
"""

import ctypes
import functools
import importlib.util
import math
import os
import pathlib
import random
import zlib

import numpy as np
import pytest

import aoti.engine._native

FACTOR = float(os.environ.get("AOTI_CONFORMANCE", "1"))

# The dtypes by name: their numbers in compiled code, and numpy's dtype of the same bits.
NUMBERS = {
    "uint8": (0, "u1"),
    "int8": (1, "i1"),
    "int16": (2, "i2"),
    "int32": (3, "i4"),
    "int64": (4, "i8"),
    "float16": (5, "f2"),
    "float32": (6, "f4"),
    "float64": (7, "f8"),
    "complex64": (9, "c8"),
    "complex128": (10, "c16"),
    "bool": (11, "?"),
    "bfloat16": (15, "u2"),
    "uint16": (27, "u2"),
    "uint32": (28, "u4"),
    "uint64": (29, "u8"),
}
NUMPY = {name: np.dtype(code) for name, (_, code) in NUMBERS.items()}
NAMES = {number: name for name, (number, _) in NUMBERS.items()}
INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
FLOATS = ("float32", "float64", "bfloat16", "float16")
COMPLEX = ("complex64", "complex128")
EPSILON = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}


TYPES = {  # of the arguments that a letter of a signature stands for
    "i": [ctypes.c_int64],
    "b": [ctypes.c_int32],
    "d": [ctypes.c_double],
    "s": [ctypes.c_char_p],
    **{letter: [ctypes.c_void_p] for letter in "tmnopq"},
    **{letter: [ctypes.c_void_p, ctypes.c_int64] for letter in "lLv"},
}


class Side:
    """One of the two libraries. The names of its functions begin with `prefix`."""

    def __init__(self, path, prefix):
        self.library = ctypes.CDLL(str(path))
        self.prefix = prefix
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        small = ctypes.c_int32
        self.create = self.function(
            "create_tensor_from_blob",
            *(pointer, number, pointer, pointer, number, small, small, small, pointer),
        )
        self.delete = self.function("delete_tensor_object", pointer)
        self.getters = [
            self.function(f"get_{what}", pointer, pointer)
            for what in ("dim", "dtype", "sizes", "strides", "data_ptr")
        ]
        self.calls = {}

    def function(self, name, *types):
        function = self.library[self.prefix + name]
        function.argtypes = types
        function.restype = ctypes.c_int32
        return function

    def handle(self, operand):
        made = ctypes.c_void_p()
        rank = len(operand.sizes)
        numbers = (ctypes.c_int64 * (2 * rank))(*operand.sizes, *operand.strides)
        at = ctypes.addressof(numbers)
        code = self.create(
            *(operand.address, rank, at, at + 8 * rank, operand.offset),
            *(operand.number, 0, -1, ctypes.byref(made)),
        )
        assert code == 0
        return made.value

    def result(self, handle):
        rank, dtype = ctypes.c_int64(), ctypes.c_int32()
        sizes, strides, data = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        for getter, into in zip(self.getters, (rank, dtype, sizes, strides, data), strict=True):
            getter(handle, ctypes.byref(into))
        extents = ctypes.c_int64 * rank.value
        return Result(
            NAMES[dtype.value],
            tuple(extents.from_address(sizes.value)) if rank.value else (),
            tuple(extents.from_address(strides.value)) if rank.value else (),
            data.value,
        )

    def call(self, name, signature, outputs, args):
        """What a function returns, or None if it failed. The letters of the signature:

        t    a tensor
        m    a tensor that is changed, and is a result
        o    a tensor or null
        l L  tensors, and tensors or nulls, with their number
        i b d  an int64, int32 and double
        n p q  a pointer to the int32 of a dtype, to a double, and to an int64, or null
        v    int64s, with their number
        s    a string
        """
        key = (name, signature, outputs)
        function = self.calls.get(key)
        if function is None:
            types = [kind for letter in signature for kind in TYPES[letter]]
            types += [ctypes.c_void_p] * outputs
            function = self.calls[key] = self.function(name, *types)
        values, handles, kept, changed = [], [], [], []

        def handle_of(operand):
            handles.append(self.handle(operand))
            return handles[-1]

        def pointer_to(array):
            kept.append(array)
            return ctypes.addressof(array)

        def optional(operand):
            return None if operand is None else pointer_to(ctypes.c_void_p(handle_of(operand)))

        for letter, given in zip(signature, args, strict=True):
            if letter == "t":
                values.append(handle_of(given))
            elif letter == "m":
                changed.append(given.copy())
                values.append(handle_of(changed[-1]))
            elif letter == "o":
                values.append(optional(given))
            elif letter == "l":
                array = (ctypes.c_void_p * len(given))(*map(handle_of, given))
                values += [pointer_to(array), len(given)]
            elif letter == "L":
                array = (ctypes.c_void_p * len(given))(*map(optional, given))
                values += [pointer_to(array), len(given)]
            elif letter == "v":
                values += [pointer_to((ctypes.c_int64 * len(given))(*given)), len(given)]
            elif letter == "n":
                number = None if given is None else NUMBERS[given][0]
                values.append(None if given is None else pointer_to(ctypes.c_int32(number)))
            elif letter in "pq":
                kind = ctypes.c_double if letter == "p" else ctypes.c_int64
                values.append(None if given is None else pointer_to(kind(given)))
            else:
                values.append(given)
        made = (ctypes.c_void_p * max(outputs, 1))()
        first = ctypes.addressof(made)
        code = function(*values, *range(first, first + 8 * outputs, 8))
        results = None
        if code == 0:
            results = [self.result(made[i]) for i in range(outputs)]
            results += [Result.of(operand) for operand in changed]
            for i in range(outputs):
                self.delete(made[i])
        for handle in handles:
            self.delete(handle)
        return results


class Operand:
    """A tensor over the memory of `base`, which has one dimension."""

    __slots__ = ("address", "base", "dtype", "number", "offset", "sizes", "strides")

    def __init__(self, dtype, base, sizes, strides, offset=0):
        self.dtype = dtype
        self.number = NUMBERS[dtype][0]
        self.base = base
        self.address = base.ctypes.data
        self.sizes = tuple(sizes)
        self.strides = tuple(strides)
        self.offset = offset

    @classmethod
    def of(cls, array, dtype=None):
        array = np.asarray(array)
        strides = np.cumprod([1, *[max(size, 1) for size in array.shape[:0:-1]]])[::-1]
        return cls(dtype or str(array.dtype), array.ravel(), array.shape, map(int, strides))

    def copy(self):
        return Operand(self.dtype, self.base.copy(), self.sizes, self.strides, self.offset)

    def array(self):
        step = self.base.itemsize
        return np.ndarray(
            self.sizes,
            self.base.dtype,
            self.base,
            self.offset * step,
            [stride * step for stride in self.strides],
        )

    def __repr__(self):
        return f"{self.dtype}{list(self.sizes)}/{list(self.strides)}+{self.offset}"


class Result:
    __slots__ = ("bytes", "dtype", "sizes", "strides")

    def __init__(self, dtype, sizes, strides, address):
        self.dtype = dtype
        self.sizes = sizes
        self.strides = strides
        count = 0
        if 0 not in sizes:
            count = 1 + sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
        self.bytes = ctypes.string_at(address, count * NUMPY[dtype].itemsize) if count else b""

    @classmethod
    def of(cls, operand):
        """All of its memory: what lies between its elements has to stay as it was."""
        return cls(operand.dtype, (operand.base.size,), (1,), operand.address)

    def array(self):
        dtype = NUMPY[self.dtype]
        steps = [step * dtype.itemsize for step in self.strides]
        return np.ndarray(self.sizes, dtype, self.bytes, 0, steps)


def numbers_of(array, dtype):
    """An array as numbers that numpy can compare."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def same_numbers(one, other):
    if np.iscomplexobj(one):
        return same_numbers(one.real, other.real) & same_numbers(one.imag, other.imag)
    return (one == other) | (np.isnan(one) & np.isnan(other))


def difference(theirs, ours, tolerance, atol=0.0):
    """Why two results are not the same; None if they are. The tolerance is relative, in units of
    the last place."""
    for what in ("dtype", "sizes", "strides"):
        expected, given = getattr(theirs, what), getattr(ours, what)
        if expected != given:
            return f"{what} {given} instead of {expected}"
    if theirs.bytes == ours.bytes or 0 in theirs.sizes:
        return None
    expected, given = theirs.array(), ours.array()
    if theirs.dtype not in EPSILON:
        wrong = expected != given
    else:
        with np.errstate(all="ignore"):
            expected = numbers_of(expected.copy(), theirs.dtype)
            given = numbers_of(given.copy(), theirs.dtype)
            wrong = ~same_numbers(expected, given)
            if tolerance or atol:
                wide = np.float64 if expected.dtype == np.float16 else expected.dtype
                expected, given = expected.astype(wide), given.astype(wide)
                bound = np.abs(expected) * (tolerance * EPSILON[theirs.dtype]) + atol
                near = np.abs(given - expected) <= bound
                wrong &= ~(near & np.isfinite(expected) & np.isfinite(given))
    wrong = np.asarray(wrong)
    if not wrong.any():
        return None
    where = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    values = f"{given[where]!r} instead of {expected[where]!r}"
    return f"{values} at {[*map(int, where)]}, {wrong.sum()} in all"


@functools.cache
def sides():
    """libtorch and the native engine. Skips a test where one of them is missing."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        pytest.skip("torch is not installed: there is nothing to compare with")
    torch = pathlib.Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    native = pathlib.Path(aoti.engine._native.__file__).parent / "libaoti_cpu.so"
    for library in (torch, native):
        if not library.exists():
            pytest.skip(f"{library.name} is not there")
    return Side(torch, "aoti_torch_"), Side(native, "aotinative_")


class Conformance:
    """The cases of one test. All deviations are reported together, when it ends."""

    total = 0  # cases of all tests

    def __init__(self, name):
        self.theirs, self.ours = sides()
        self.random = random.Random(zlib.crc32(name.encode()))
        self.deviations = []
        self.cases = 0

    def count(self, cases):
        return range(max(1, round(cases * FACTOR)))

    def check(self, name, signature, outputs, *args, tolerance=0, atol=0.0, fails=False, only=None):
        """Compares one call. `fails` allows both to fail; then they have to agree on it. `only`
        as many results are compared."""
        self.cases += 1
        theirs = self.theirs.call(name, signature, outputs, args)
        ours = self.ours.call(name, signature, outputs, args)
        if theirs is None or ours is None:
            why = None
            if (theirs is None) != (ours is None):
                why = "fails" if ours is None else "does not fail"
            elif not fails:
                why = "fails on both sides"
        else:
            pairs = list(zip(theirs, ours, strict=True))[:only]
            found = [difference(*pair, tolerance, atol) for pair in pairs]
            why = "; ".join(f"result {i}: {text}" for i, text in enumerate(found) if text) or None
        if why is not None:
            self.deviations.append(f"{why}: {name}({', '.join(map(repr, args))})")
        return theirs

    def finish(self):
        Conformance.total += self.cases
        shown = "\n".join(text[:600] for text in self.deviations[:8])
        assert not self.deviations, (
            f"{len(self.deviations)} of {self.cases} cases deviate from libtorch:\n{shown}"
        )

    # -- operands --------------------------------------------------------------------------------

    def integer(self, low, high):
        """From low to high, both included."""
        return self.random.randint(low, high)

    def chance(self, share):
        return self.random.random() < share

    def choose(self, *options):
        return self.random.choice(options)

    def sizes(self, least=0, most=4, limit=6):
        """Sizes of a random rank. 0 and 1 are among them."""
        rank = self.integer(least, most)
        sizes = [self.integer(1, limit) for _ in range(rank)]
        if rank and self.chance(0.08):
            sizes[self.integer(0, rank - 1)] = 0
        if rank and self.chance(0.25):
            sizes[self.integer(0, rank - 1)] = 1
        return sizes

    def values(self, dtype, count, kind="plain"):
        """`count` elements: small numbers, or "special" ones too, or "few" different ones."""
        pool = pool_of(dtype, kind)
        if count > pool.size:
            return np.resize(pool, count)
        start = self.integer(0, pool.size - count)
        return pool[start : start + count].copy()

    def layout(self, sizes, repeats=False):
        """Strides and an offset of one of several kinds; with `repeats`, strides of 0 too."""
        rank = len(sizes)
        kind = self.choose("plain", "plain", "permuted", "stepped", "repeated")
        order = list(range(rank - 1, -1, -1))
        step = 1
        if kind in ("permuted", "stepped"):
            self.random.shuffle(order)
        if kind == "stepped":
            step = self.integer(1, 3)
        strides = [0] * rank
        for dim in order:
            strides[dim] = step
            step *= max(sizes[dim], 1)
            if kind == "stepped" and self.chance(0.3):
                step += self.integer(1, 3)
        if kind == "repeated" and repeats:
            for dim in range(rank):
                if self.chance(0.4):
                    strides[dim] = 0
        return strides, self.integer(1, 5) if self.chance(0.2) else 0

    def operand(self, dtype, sizes, kind="plain", repeats=True, strides=None, offset=0):
        if strides is None:
            strides, offset = self.layout(sizes, repeats)
        reach = 1
        if 0 not in sizes:
            reach += sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
        return Operand(dtype, self.values(dtype, reach + offset, kind), sizes, strides, offset)

    def output(self, dtype, sizes, **layout):
        return self.operand(dtype, sizes, repeats=False, **layout)


@functools.cache
def pool_of(dtype, kind):
    count = 1 << 14
    numbers = np.random.default_rng(zlib.crc32(f"{dtype} {kind}".encode()))
    if dtype == "bool":
        return numbers.random(count) < 0.5
    if dtype in COMPLEX:
        part = "float32" if dtype == "complex64" else "float64"
        return pool_of(part, kind)[numbers.integers(0, count, 2 * count)].view(NUMPY[dtype])
    if dtype == "bfloat16":
        return (pool_of("float32", kind).view(np.uint32) >> 16).astype(np.uint16)
    if dtype in FLOATS:
        if kind == "few":
            values = numbers.integers(-3, 4, count).astype(NUMPY[dtype])
            values[numbers.random(count) < 0.05] = np.nan
            values[numbers.random(count) < 0.05] = -0.0
            return values
        values = numbers.normal(0, 2, count).astype(NUMPY[dtype])
        if kind == "special":
            for special in (np.nan, np.inf, -np.inf, 0.0, -0.0):
                values[numbers.random(count) < 0.03] = special
        return values
    info = np.iinfo(NUMPY[dtype])
    if kind == "special":
        return numbers.integers(info.min, info.max, count, NUMPY[dtype], endpoint=True)
    low = -3 if kind == "few" else -20
    return numbers.integers(max(low, info.min), 1 - low, count).astype(NUMPY[dtype])


def volume(sizes):
    return math.prod(sizes)
