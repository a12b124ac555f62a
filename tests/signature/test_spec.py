"""Specifications: what is read from wrapper.cpp, and what becomes of arrays that do not fit."""

from __future__ import annotations

import contextlib
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aoti import AotiError, Dim, IncompatiblePackageError, InputError, Package, TensorSpec
from aoti.errors import InputTypeError
from aoti.package.wrapper_cpp import read_call_spec, read_inputs
from aoti.signature.dtypes import DTYPES
from aoti.signature.signature import Signature
from aoti.signature.spec import ConstantSpec


def spec(shape, strides, dtype="float32", name="x") -> TensorSpec:
    """A specification in short: symbols are words, strides one text."""
    dims = tuple(Dim(size) if isinstance(size, str) else size for size in shape)
    return TensorSpec(name, dtype, dims, tuple(strides.split(", ")) if strides else (), "cpu")


def dense(*shape, dtype="float32", name="x") -> TensorSpec:
    strides = np.cumprod([1, *reversed(shape[1:])])[::-1] if shape else ()
    return spec(shape, ", ".join(map(str, strides)), dtype, name)


def signature_of(inputs) -> Signature:
    return Signature.of_wrapper(inputs, None)


# -- real wrappers -------------------------------------------------------------------------------


@pytest.fixture
def inputs_of(packages):
    def read(name):
        with Package(packages / f"{name}.pt2") as package:
            return read_inputs(package.source())

    return read


def test_a_dynamic_size_comes_with_its_symbol_and_bounds(inputs_of):
    (rows,) = inputs_of("mlp")
    batch, width = rows.shape
    assert (rows.dtype, width, rows.device) == ("float32", 10, "cpu")
    assert (batch.min, batch.max) == (2, 1024)
    assert rows.strides == ("10", "1")
    assert str(rows) == f"float32 ({batch.name}, 10)"


def test_sizes_that_must_agree_have_one_symbol(inputs_of):
    x, y = inputs_of("shared")
    assert x.shape[0] == y.shape[0]
    assert (x.shape[1], y.shape[1]) == (3, 5)
    layouts = [
        ("float32", ((0, 1, 0), 3), (1, 0), None, False, None),
        ("float32", ((0, 1, 0), 5), (1, 0), None, False, None),
    ]
    assert signature_of((x, y)).layouts() == (layouts, {x.shape[0].name: (2, 1024)})


def test_every_dtype_is_read(inputs_of):
    names = [spec.dtype for spec in inputs_of("dtypes")]
    assert set(names) == {
        name for name in DTYPES if not name.startswith(("float8", "bfloat", "complex32"))
    }
    assert {spec.shape for spec in inputs_of("dtypes")} == {(2, 3)}


def test_inputs_that_are_only_passed_on_are_read(inputs_of):
    assert [spec.dtype for spec in inputs_of("tree")] == ["float32"] * 7 + ["bool"]
    assert {spec.shape for spec in inputs_of("tree")} == {(3, 4)}
    assert [spec.shape for spec in inputs_of("alias")] == [(3, 4)]


def test_layouts_are_read(inputs_of):
    image, matrix, strided = inputs_of("layouts")
    assert (image.shape, image.strides) == ((2, 3, 4, 5), ("60", "1", "15", "3"))
    assert [spec.order() for spec in (image, matrix, strided)] == [(1, 3, 2, 0), (0, 1), None]
    assert strided.layout({}) == ("float32", (3, 4), None, (8, 2), False, None)


def test_the_call_spec_is_that_of_the_loaded_model(packages, mlp):
    with Package(packages / "mlp.pt2") as package:
        assert read_call_spec(package.source()) == mlp.call_spec


# -- wrappers of other forms ---------------------------------------------------------------------


def wrapper(*checks: str, run: str = "") -> str:
    """As the exporter writes it: per input the lines of its checks, then those of a run."""
    lines = [
        f"ConstantHandle arg{i} = ConstantHandle(input_handles[{i}]);\n{check}"
        for i, check in enumerate(checks)
    ]
    return "\n".join([*lines, "void AOTInductorModel::run_impl(", run])


DTYPE = "int32_t arg0_expected_dtype = aoti_torch_dtype_int64();"
TEN = "if (10 != arg0_size[0]) {"


def test_a_text_without_checks_tells_nothing():
    for source in (
        "",
        "int main() {}",
        wrapper(),
        "void AOTInductorModel::run_impl(\n" + wrapper(""),
    ):
        assert read_inputs(source) is None
    assert read_inputs(wrapper("").replace("[0]", "[1]")) is None
    assert signature_of(None).layouts() is None


@pytest.mark.parametrize(
    ("checks", "run", "shape", "strides", "order"),
    [
        (DTYPE, "", (), "", ()),  # a scalar
        (DTYPE, "assert_size_stride(arg0, {}, {}", (), "", ()),
        (f"{TEN} if (1 != arg0_stride[0])", "", (10,), "1", (0,)),  # not used, so not asserted
        (f"{TEN} if (1 != arg0_stride[1])", "", (10, "arg0.1"), "?, 1", (1, 0)),
        ("", "int64_t s0 = arg0_size[0];", ("s0",), "?", None),
        ("", "assert_size_stride(arg0, {s0, 10L}, {10L, 1L}", ("s0", 10), "10, 1", (1, 0)),
        ("", "assert_size_stride(arg0, {s0, }, {1L, }", ("s0",), "1", (0,)),
        # Expressions: the compiler's words for products, sums and squares.
        ("", "assert_size_stride(arg0, {5L, 2L*s8}, {2L*s8, 1L}", (5, "2*s8"), "2*s8, 1", (1, 0)),
        (
            "",
            "assert_size_stride(arg0, {s1, s2, s2}, {static_cast<int64_t>(s2*s2), s2, 1L}",
            ("s1", "s2", "s2"),
            "(s2*s2), s2, 1",
            (2, 1, 0),
        ),
        (
            "",
            "assert_size_stride(arg0, {s1, 1L + s2, 3L}, {3L + 3L*s2, 3L, 1L}",
            ("s1", "1 + s2", 3),
            "3 + 3*s2, 3, 1",
            (2, 1, 0),
        ),
        # What cannot be read is left to the checks.
        (TEN, "assert_size_stride(arg0, {10L, 5L}, {1L}", (10,), "?", None),
        (TEN, "assert_size_stride(arg0, {f::g(a, b)}, {f::g(a, b)}", (10,), "?", None),
        (TEN, f"assert_size_stride(arg0, {{{'9' * 19}}}, {{1L}}", (10,), "?", None),
        (f"if ({'9' * 19} != arg0_size[0])", "", (), "", ()),
        ("if (10 != arg0_size[1000000000])", "", (), "", ()),
    ],
)
def test_the_forms_that_checks_can_have(checks, run, shape, strides, order):
    (read,) = read_inputs(wrapper(checks, run=run))
    assert read.shape == spec(shape, "").shape
    assert ", ".join(read.strides) == strides
    assert read.order() == order


@pytest.mark.parametrize(
    ("checks", "bounds"),
    [
        ("", (None, None)),
        ("if (arg0_size[0] < 2)", (2, None)),
        ("if (arg0_size[0] > 9223372036854775807)", (None, 2**63 - 1)),
        ("if (arg0_size[0] < 2) { } if (arg0_size[0] > 16)", (2, 16)),
    ],
)
def test_bounds_are_those_that_are_told(checks, bounds):
    (read,) = read_inputs(wrapper(checks, run="assert_size_stride(arg0, {s0}, {1L}"))
    assert (read.shape[0].min, read.shape[0].max) == bounds


PIECES = [
    *wrapper(DTYPE, TEN).split(" "),
    *"{ } ( ) [ ] , L * + - 0 1 9 s0 arg0 ? :: \n \0".split(" "),
]
PIECES += [f"if ({'9' * 5000} != arg0_size[{'9' * 5000}])", "assert_size_stride(arg0, {", "}, {"]
PIECES += ["int64_t s0 = arg0_size[0];", "if (arg0_size[0] < 2)", "static_cast<int64_t>(", "٣", "²"]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40), st.text("sabL0129*+-(), ", max_size=40))
def test_any_text_gives_a_result_or_an_aoti_error(pieces, expression):
    asserted = f"assert_size_stride(arg0, {{s0, {expression}}}, {{{expression}, 1L}}"
    for source in ("".join(pieces), wrapper(" ".join(pieces), run=asserted + " ".join(pieces))):
        read_call_spec(source)
        with contextlib.suppress(AotiError):
            layouts, _ = signature_of(read_inputs(source)).layouts() or ([], [])
            for size in itertools.chain(*(layout[1] for layout in layouts)):
                numbers = size if isinstance(size, tuple) else [size]
                assert all(-(2**63) < number < 2**63 for number in numbers)


@pytest.mark.parametrize(
    "source",
    [
        wrapper("(" * 1_000_000),
        'in_spec_ = R"(' * 70_000,
        "assert_size_stride(a, {" * 40_000,
        "ConstantHandle " * 60_000 + "int64_t " + "a_size" * 100_000,
        wrapper(
            *[""] * 9000, run=" ".join(f"int64_t s{i} = arg{i}_size[0];" for i in range(15_000))
        ),
        wrapper(
            "", run="assert_size_stride(arg0, {" + "s0," * 300_000 + "}, {" + "1," * 300_000 + "}"
        ),
        wrapper("", run="assert_size_stride(arg0, {s0}, {" + "(" * 500_000 + "}"),
        wrapper("", run=f"assert_size_stride(arg0, {{{'9' * 500_000}}}, {{{'9' * 500_000}}}"),
    ],
    ids=lambda source: source[:40],
)
def test_a_hostile_text_takes_no_time(source):
    start = time.perf_counter()
    read_call_spec(source)
    with contextlib.suppress(AotiError):
        signature_of(read_inputs(source)).layouts()
    assert time.perf_counter() - start < 2


# -- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "strides", "order"),
    [
        ((), "", ()),
        ((3,), "1", (0,)),
        ((2, 3), "3, 1", (1, 0)),
        ((2, 3), "1, 2", (0, 1)),
        ((2, 3), "", (1, 0)),
        ((2, 3, 4, 5), "60, 1, 15, 3", (1, 3, 2, 0)),
        (("n", 3, "h", "w"), "3*h*w, 1, 3*w, 3", (1, 3, 2, 0)),
        (("n", "c", 4, 5), "20*c, 1, 5*c, c", (1, 3, 2, 0)),
        (("a", "b", "c"), "c, a*c, 1", (2, 0, 1)),
        (("a", "a"), "a, 1", (1, 0)),
        (("a", "b"), "?, 1", (1, 0)),
        (("a", "b"), "1, ?", (0, 1)),
        ((1, 5, 1), "77, 1, 99", (2, 1, 0)),
        ((2, 0, 3), "3, 3, 1", (2, 1, 0)),
        ((2,) * 7, "64, 32, 16, 8, 4, 2, 1", (6, 5, 4, 3, 2, 1, 0)),
        ((2,) * 6, "1, 2, 4, 8, 16, 32", None),
        ((2, 3), "6, 2", None),
        ((3, 4), "0, 1", None),
        ((3, 4), "1, 1", None),
        (("a", "b"), "b + 1, 1", None),
        (("a", "b"), "a, 1", None),
        (("a", "b"), "f(b), 1", None),
        (("a", 4), "?, 1", None),
    ],
)
def test_the_order_of_a_layout(shape, strides, order):
    assert spec(shape, strides).order() == order


def test_a_layout_that_the_package_does_not_tell_is_refused():
    with pytest.raises(IncompatiblePackageError, match=r"'x'.*strides 2\*b, 2.*contiguous example"):
        spec(("a", "b"), "2*b, 2").layout({})
    assert TensorSpec("x", "float32", None).layout({}) == ("float32", None, None, None, False, None)


@pytest.mark.parametrize(
    ("sizes", "forms"),
    [
        (("s", "s"), [(0, 1, 0), (0, 1, 0)]),
        (("s", "1 + s"), [(0, 1, 0), (0, 1, 1)]),
        (("2*s", "s"), [(0, 2, 0), (0, 1, 0)]),
        (("2*s + 1", "(-3) + s"), [(0, 2, 1), (0, 1, -3)]),
        (("s*t", "s*t"), [(0, 1, 0), (0, 1, 0)]),
        (("s", "t"), [(0, 1, 0), (1, 1, 0)]),
        (("s", "9 - s"), [(0, 1, 0), (0, -1, 9)]),
    ],
)
def test_sizes_are_a_multiple_of_a_symbol_and_a_number(sizes, forms):
    specs = [spec((size,), "1") for size in sizes]
    assert [layout[1][0] for layout in signature_of(specs).layouts()[0]] == forms


@pytest.mark.parametrize("sizes", [("s*t", "t"), ("s*s", "s"), ("s - t", "s")])
def test_sizes_that_cannot_be_checked_against_each_other_are_refused(sizes):
    specs = [spec((size,), "1") for size in sizes]
    with pytest.raises(IncompatiblePackageError, match="depend on each other"):
        signature_of(specs).layouts()


# -- arguments that are no tensors ----------------------------------------------------------------


@pytest.mark.parametrize("value", [3, True, 2.5, float("nan"), "mean", None, -0.0])
def test_a_constant_of_the_call_takes_the_same_value(value):
    ConstantSpec("n", value).check(value, "args[1]")


@pytest.mark.parametrize(
    ("exported", "given", "error", "words"),
    [
        (3, 4, InputError, r"^args\[1\]: the model was exported with 3, got 4; .*export the model"),
        (3, 3.0, InputTypeError, "exported with 3, got 3.0"),
        (1, True, InputTypeError, "exported with 1, got True"),
        (True, 1, InputTypeError, "exported with True, got 1"),
        (0.0, -0.0, InputError, "exported with 0.0, got -0.0"),
        (None, 0, InputTypeError, "exported with None, got 0"),
        ("mean", "sum", InputError, "exported with 'mean', got 'sum'"),
        (3, np.int64(3), InputTypeError, "got int64"),
        (3, np.zeros(2), InputTypeError, "got ndarray"),
        (3, "x" * 1000, InputTypeError, r"got 'x+\.\.\.;"),
    ],
)
def test_a_constant_of_the_call_takes_no_other_value(exported, given, error, words):
    with pytest.raises(error, match=words):
        ConstantSpec("n", exported).check(given, "args[1]")
