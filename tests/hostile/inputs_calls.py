"""Calls whose structure, names, constants or index values are wrong, and calls at a wrong time."""

from __future__ import annotations

import collections
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
from runner import Input, bad, right

from aoti import InputError, InputTypeError, ModelClosedError


class Odd(dict):
    """A dict that says what it likes of itself."""

    def __init__(self, *args: Any, length: int = 2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, *_: object) -> Any:
        raise RuntimeError("no items today")

    __iter__ = keys = items = values = __contains__ = __getitem__  # type: ignore[assignment]


class OddTuple(tuple):
    """A tuple that says what it likes of itself."""

    _fields = ("first", "second")

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter(range(1000))


class OddKey(str):
    """A text that is not equal to itself."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False


class OddInt(int):
    """An int that is equal to everything."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "3"


def with_itself(items: list[Any]) -> list[Any]:
    items[0] = items
    return items


def nested(depth: int) -> Any:
    value: Any = np.ones(1)
    for _ in range(depth):
        value = [value]
    return value


def tree(**changes: Any) -> Any:
    """A call of the model that takes containers, with some of them changed."""

    def call(m: Any, g: Any) -> Any:
        parts = {"a": g.x, "b": g.y, "c": g.z, **g.kwargs}
        parts |= {name: change(parts) for name, change in changes.items()}
        args = [parts.pop(name) for name in "abc"]
        return m(*args, **{k: v for k, v in parts.items() if v is not tree})

    return call


def without(name: str) -> Any:
    return tree(**{name: lambda p: tree})


def index(*values: int) -> Any:
    return lambda m, g: m(np.array(values))


def closed(call: Any) -> Any:
    def late(m: Any, g: Any) -> Any:
        m.close()
        return call(m, g)

    return late


STRUCTURE = (
    bad("a list for two arguments", "shared", lambda m, g: m([g.x, g.y]), InputError,
        "takes 2 positional arguments, got 1", "spread the list: model(*values)"),
    bad("a wrong key", "tree", tree(a=lambda p: {"x": p["a"]["x"], "Y": p["a"]["y"]}), InputError,
        "args[0]: expected a dict with keys 'x', 'y'", "'y' is missing", "'Y' is unexpected"),
    bad("another int", "scalars", lambda m, g: m(g.x, 4), InputError,
        "args[1]", "exported with 3, got 4", "compiled in"),
    bad("no arguments", "shared", lambda m, g: m(), InputError, "missing arguments 'x', 'y'"),
    bad("one argument of two", "shared", lambda m, g: m(g.x), InputError, "missing argument 'y'"),
    bad("three arguments of two", "shared", lambda m, g: m(g.x, g.y, g.y), InputError,
        "takes 2 positional arguments, got 3"),
    bad("100,000 arguments", "mlp", lambda m, g: m(*[g.x] * 100_000), InputError,
        "got 100000", repeats=50),
    bad("an unknown keyword", "shared", lambda m, g: m(g.x, z=g.y), InputError,
        "unexpected argument 'z'", "'y'"),
    bad("a keyword given twice", "shared", lambda m, g: m(g.x, g.y, x=g.x), InputError,
        "argument 'x' given by position and by keyword"),
    bad("a keyword too many", "mlp", lambda m, g: m(g.x, y=g.x), InputError, "'y'"),
    bad("a misspelt keyword", "dtypes",
        lambda m, g: m(**{k.replace("float16", "flota16"): v for k, v in g.kwargs.items()}),
        InputError, "unexpected keyword argument 'flota16'", "did you mean 'float16'?"),
    bad("10,000 keywords", "mlp", lambda m, g: m(**{f"k{n}": g.x for n in range(10_000)}),
        InputError, "(10000 in all)", repeats=50),
    bad("a long keyword", "mlp", lambda m, g: m(**{"k" * 100_000: g.x}), InputError,
        "kkk...", repeats=50),
    bad("an empty keyword", "mlp", lambda m, g: m(**{"": g.x}), InputError, "''"),
    bad("a keyword that is no text", "mlp", lambda m, g: m(g.x, **{"\ud800\n\x1b[2J": g.x}),
        InputError, "\\x1b[2J"),
    bad("a keyword missing", "tree", without("mask"), InputError, "missing", "'mask'"),
    bad("positions for keywords", "dtypes", lambda m, g: m(*g.kwargs.values()), InputError,
        "takes 0 positional arguments, got 14", "by keyword"),
    bad("a tuple for a list", "tree", tree(b=lambda p: tuple(p["b"])), InputTypeError,
        "args[1]: expected a list of 2, got a tuple of 2"),
    bad("a list too short", "tree", tree(b=lambda p: p["b"][:1]), InputError,
        "args[1]: expected a list of 2, got a list of 1"),
    bad("a list too long", "tree", tree(b=lambda p: p["b"] * 50_000), InputError, "list of 100000"),
    bad("a tuple for a namedtuple", "tree", tree(c=lambda p: tuple(p["c"])), InputTypeError,
        "args[2]: expected a namedtuple with fields 'first', 'second'"),
    bad("another namedtuple", "tree",
        tree(c=lambda p: collections.namedtuple("P", "a b")(*p["c"])), InputTypeError,
        "'a', 'b'"),
    bad("a list for a dict", "tree", tree(a=lambda p: list(p["a"].items())), InputTypeError,
        "args[0]: expected a dict", "got a list"),
    bad("a mapping that is no dict", "tree", tree(a=lambda p: MappingProxyType(p["a"])),
        InputTypeError, "args[0]: expected a dict", "mappingproxy"),
    bad("an array for a dict", "tree", tree(a=lambda p: p["a"]["x"]), InputTypeError, "ndarray"),
    bad("a dict for an array", "tree", tree(mask=lambda p: {"mask": p["mask"]}), InputTypeError,
        "kwargs['mask']: expected one array, got a dict"),
    bad("None for a dict", "tree", tree(a=lambda p: None), InputTypeError, "got None"),
    bad("None for an array in a dict", "tree", tree(options=lambda p: {"scale": None}),
        InputTypeError, "kwargs['options']['scale']", "got NoneType"),
    bad("an empty dict", "tree", tree(options=lambda p: {}), InputError, "'scale' is missing"),
    bad("keys that are no text", "tree", tree(a=lambda p: {1: p["a"]["x"], (2,): 3}), InputError,
        "1 is unexpected", "(2,) is unexpected"),
    bad("a key that is not equal to itself", "tree",
        tree(options=lambda p: {OddKey("scale"): p["options"]["scale"]}), InputError, "'scale'"),
    bad("a dict too deep", "tree", tree(options=lambda p: {"scale": {"scale": p["options"]}}),
        InputTypeError, "expected one array, got a dict"),
    bad("a list of itself", "tree", tree(b=lambda p: with_itself([0, 1])), InputTypeError,
        "args[1][0]: expected one array, got a list of 2"),
    bad("a list of itself for an array", "mlp", lambda m, g: m(with_itself([0])), InputTypeError,
        "got a list of 1"),
    bad("100,000 nested lists", "mlp", lambda m, g: m(nested(100_000)), InputTypeError,
        "got a list of 1", repeats=20),
    bad("a dict that lies and raises", "tree", tree(a=lambda p: Odd(X=p["a"]["x"])), InputError,
        "args[0]: expected a dict with keys 'x', 'y'", "'x' is missing", "'X' is unexpected"),
    bad("a dict of a huge length", "tree", tree(a=lambda p: Odd(length=1 << 60)), InputError,
        "'x' is missing"),
    bad("a dict that lies for an array", "mlp", lambda m, g: m(Odd(x=g.x)), InputTypeError,
        "expected an array", "Odd"),
    right("a dict that lies and is right", "tree", tree(a=lambda p: Odd(p["a"], length=-1))),
    bad("a namedtuple that lies", "tree", tree(c=lambda p: OddTuple([1])), InputTypeError,
        "args[2]: expected a namedtuple"),
    bad("an object with the right attributes", "tree",
        tree(a=lambda p: SimpleNamespace(**p["a"])), InputTypeError, "SimpleNamespace"),
    right("keywords in another order", "tree",
          lambda m, g: m(*g.args, **dict(reversed(g.kwargs.items())))),
    right("positional arguments by keyword", "shared", lambda m, g: m(y=g.y, x=g.x)),
    right("other kinds of dict", "tree",
          tree(a=lambda p: collections.OrderedDict(reversed(p["a"].items())),
               options=lambda p: collections.defaultdict(int, p["options"]))),
)  # fmt: skip

CONSTANTS = (
    bad("a bool for an int", "scalars", lambda m, g: m(g.x, True), InputTypeError, "got True"),
    bad("an equal float for an int", "scalars", lambda m, g: m(g.x, 3.0), InputTypeError,
        "exported with 3, got 3.0"),
    bad("a numpy int for an int", "scalars", lambda m, g: m(g.x, np.int64(3)), InputTypeError,
        "exported with 3, got int64"),
    bad("an int that is equal to all", "scalars", lambda m, g: m(g.x, OddInt(7)), InputTypeError,
        "exported with 3"),
    bad("None for an int", "scalars", lambda m, g: m(g.x, None), InputTypeError, "got None"),
    bad("text for an int", "scalars", lambda m, g: m(g.x, "3" * 100_000), InputTypeError, "..."),
    bad("an array for an int", "scalars", lambda m, g: m(g.x, g.x), InputTypeError, "got ndarray"),
    bad("an int of 10,000 digits", "scalars", lambda m, g: m(g.x, 10**10_000), InputError,
        "exported with 3"),
    bad("array and int swapped", "scalars", lambda m, g: m(3, g.x), InputTypeError, "ndarray"),
    bad("an int missing", "scalars", lambda m, g: m(g.x), InputError, "'n'"),
    right("by keyword", "scalars", lambda m, g: m(n=3, x=g.x)),
)  # fmt: skip

VALUES = (
    bad("an index at the end", "lookup", index(5), InputError,
        "args[0] (index): expected values in -5..4", "got 5 at [0]"),
    bad("an index before the start", "lookup", index(-6), InputError, "got -6 at [0]"),
    bad("the last of many", "lookup", index(*[4] * 1023, 5), InputError, "got 5 at [1023]"),
    bad("far out", "lookup", index(0, 99_999), InputError, "got 99999 at [1]"),
    bad("the largest int64", "lookup", index(2**63 - 1), InputError, "9223372036854775807"),
    bad("the least int64", "lookup", index(-(2**63)), InputError, "-9223372036854775808"),
    bad("beyond 32 bits", "lookup", index(1 << 32), InputError, "4294967296"),
    bad("out of range in a strided array", "lookup",
        lambda m, g: m(np.array([0, 0, 7, 0])[::2]), InputError, "got 7 at [1]"),
    bad("out of range, big-endian", "lookup", lambda m, g: m(np.array([7], ">i8")), InputError,
        "got 7 at [0]"),
    right("out of range where strides skip it", "lookup",
          lambda m, g: m(np.stack([g.x, g.x + 99], -1).ravel()[::2])),
)  # fmt: skip

CONTAINERS = (
    bad("run of an array", "mlp", lambda m, g: m.run(g.x), InputTypeError,
        "run takes a list of arrays", "got ndarray"),
    bad("run of a dict", "mlp", lambda m, g: m.run({"x": g.x}), InputTypeError, "got dict"),
    bad("run of a generator", "mlp", lambda m, g: m.run(a for a in [g.x]), InputTypeError, "gener"),
    bad("run of None", "mlp", lambda m, g: m.run(None), InputTypeError, "got NoneType"),
    bad("run of nothing", "mlp", lambda m, g: m.run([]), InputError, "takes 1 input, got 0"),
    bad("run of too much", "mlp", lambda m, g: m.run([g.x] * 1000), InputError, "got 1000"),
    bad("run of a nested list", "mlp", lambda m, g: m.run([[g.x]]), InputTypeError,
        "expected an array", "got list"),
    bad("run of a list of None", "mlp", lambda m, g: m.run([None]), InputTypeError, "NoneType"),
    bad("run of a wrong dtype", "mlp", lambda m, g: m.run([g.x.astype("f8")]), InputTypeError,
        "got float64"),
    bad("run of a list of itself", "mlp", lambda m, g: m.run(with_itself([0])), InputTypeError,
        "got list"),
    bad("boxed_run of a tuple", "mlp", lambda m, g: m.boxed_run((g.x,)), InputTypeError,
        "boxed_run empties a list", "got tuple"),
    bad("boxed_run of a wrong shape", "mlp", lambda m, g: m.boxed_run([g.x[:, :9].copy()]),
        InputError, "must be 10, not 9"),
    bad("infer of an array", "mlp", lambda m, g: m.infer(g.x), InputTypeError, "takes a list"),
    bad("infer of a bad index", "lookup", lambda m, g: m.infer([np.array([5])]), InputError,
        "expected values in -5..4"),
    bad("the constant in a flat list", "scalars", lambda m, g: m.run([g.x, 3]), InputError,
        "takes 1 input, got 2"),
    bad("a call of a closed model", "mlp", closed(lambda m, g: m(g.x)), ModelClosedError,
        "the model was closed"),
    bad("a run of a closed model", "mlp", closed(lambda m, g: m.run([g.x])), ModelClosedError,
        "the model was closed"),
    bad("a wrong call of a closed model", "mlp", closed(lambda m, g: m(g.x[:, :3])), InputError,
        "must be 10, not 3"),
    right("run of a tuple", "shared", lambda m, g: m.run((g.x, g.y))),
    right("boxed_run", "shared", lambda m, g: m.boxed_run([g.x, g.y])),
    right("a flat list without the constant", "scalars", lambda m, g: m.run([g.x])),
)  # fmt: skip

ROWS: tuple[Input, ...] = (*STRUCTURE, *CONSTANTS, *VALUES, *CONTAINERS)
