"""Signatures: the record that the exporter writes, what is read from it, and hostile ones."""

from __future__ import annotations

import contextlib
import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aoti
from aoti import ConstantSpec, Dim, Package, PackageError, Signature, TensorSpec
from aoti.package.wrapper_cpp import read_inputs
from aoti.signature.document import read_signature, write_signature

SIGNATURE = Signature(
    arguments=(
        TensorSpec(
            "index", "int64", (Dim("n", 1, 8), 3), ("3", "1"), "cpu", values=(Dim("-1*n"), 9)
        ),
        TensorSpec("x", "float32", (Dim("2*n + 1", 3, 17),), ("?",), "cpu", mutated=True),
        ConstantSpec("scale", math.inf),
        ConstantSpec("flag", True),
        ConstantSpec("none", None),
    ),
    results=(TensorSpec("output", "bfloat16", (), (), "cpu"), ConstantSpec("loss", None)),
    ranges={"n": (1, 8)},
    call_spec=("[1, {}]", "[1, {}]"),
    parameters=("index", "x"),
    fields={"m.Pair": ("first", "second")},
    unchecked_indices=("index",),
    exporter="aoti 9, torch 9",
    preset="portable",
    options={"freezing": True, "cpp.march": "x86-64-v3"},
    notes=("frozen",),
)
RECORD = json.loads(write_signature(SIGNATURE))


def read(record) -> Signature:
    return read_signature(json.dumps(record), "m.pt2")


def test_what_is_written_is_read():
    again = read_signature(write_signature(SIGNATURE), "m.pt2")
    assert write_signature(again) == write_signature(SIGNATURE)
    assert again.arguments[0].values == (Dim("-1*n"), 9)
    assert again.arguments[0].shape == (Dim("n", 1, 8), 3)
    assert again.arguments[1:] == SIGNATURE.arguments[1:]
    assert again.inputs == again.arguments[:2]
    assert (again.ranges, again.enforced) == ({"n": (1, 8)}, True)
    assert (again.parameters, again.fields) == (SIGNATURE.parameters, SIGNATURE.fields)
    assert again.unchecked_indices == ("index",)
    assert again.exporter == "aoti 9, torch 9"
    assert again.results == SIGNATURE.results
    assert again.outputs == SIGNATURE.results[:1]
    assert (again.preset, again.notes) == ("portable", ("frozen",))
    assert again.options == SIGNATURE.options


def test_a_record_need_not_have_guards():
    assert read({key: value for key, value in RECORD.items() if key != "guards"}).guards == ()


@pytest.mark.parametrize("guards", [["other % 2 == 0"], ["open('x')"], "1", [1], [None], {"a": 1}])
def test_guards_over_unknown_symbols_or_of_another_form_are_refused(guards):
    with pytest.raises(PackageError, match="signature is damaged"):
        read(RECORD | {"guards": guards})


def test_a_record_need_not_say_how_the_package_was_exported():
    signature = read({key: value for key, value in RECORD.items() if key != "export"})
    assert (signature.preset, dict(signature.options), signature.notes) == (None, {}, ())


def test_the_record_is_json_that_any_program_reads():
    def refuse(name):
        raise AssertionError(name)

    json.loads(write_signature(SIGNATURE), parse_constant=refuse)


def test_a_newer_record_asks_for_a_newer_aoti():
    with pytest.raises(PackageError, match=r"newer aoti \(aoti 9, torch 9\).*install a newer"):
        read({**RECORD, "version": 2})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("symbols",), None),
        (("symbols", "n"), {"min": -1, "max": None}),
        (("symbols", "n"), {"min": 1.5, "max": None}),
        (("symbols", "n", "max"), 10**400),
        (("inputs",), {}),
        (("inputs", 0), []),
        (("inputs", 0, "name"), "a\x1b[2J"),
        (("inputs", 0, "name"), "a" * 2000),
        (("inputs", 0, "dtype"), "float7"),
        (("inputs", 0, "dtype"), ["float32"]),
        (("inputs", 0, "shape"), ["m", 3]),
        (("inputs", 0, "shape"), [-1, 3]),
        (("inputs", 0, "shape"), [True, 3]),
        (("inputs", 0, "shape"), [10**30, 3]),
        (("inputs", 0, "shape"), [["n"], 3]),
        (("inputs", 0, "shape"), ["n" + " + n" * 1000, 3]),
        (("inputs", 0, "shape"), [1] * 65),
        (("inputs", 0, "strides"), ["3"]),
        (("inputs", 0, "strides"), ["3", "__import__('os')"]),
        (("inputs", 0, "values"), [0]),
        (("inputs", 0, "values"), ["m", 3]),
        (("inputs", 0, "values"), [0, 2**63]),
        (("inputs", 0, "mutated"), 1),
        (("inputs", 0, "device"), None),
        (("inputs", 3, "constant"), [1]),
        (("inputs", 2, "constant"), {"float": "1"}),
        (("outputs",), None),
        (("parameters",), [1]),
        (("fields", "m.Pair"), [None]),
        (("call_spec",), ["[]"]),
        (("call_spec",), [1, 2]),
        (("unchecked_indices",), [[]]),
        (("exporter",), None),
    ],
)
def test_a_damaged_record_is_refused(path, value):
    record = copy.deepcopy(RECORD)
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(PackageError, match=r"^m\.pt2: its signature is damaged"):
        read(record)


@pytest.mark.parametrize("key", sorted(RECORD.keys() - {"export", "guards"}))
def test_a_record_that_lacks_something_is_refused(key):
    with pytest.raises(PackageError, match="signature is damaged"):
        read({k: v for k, v in RECORD.items() if k != key})


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "{}", "[" * 100_000, "1" * 5000, '"x"'])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(PackageError, match="signature is damaged"):
        read_signature(text, "m.pt2")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["n", "2*n", "n*n", "float32", "?", "-1*n", "n - 1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["min", "max", "float", "constant", "name", "n"]), inner, max_size=3
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_any_record_is_a_signature_or_an_error(data):
    """And a signature that was read can be checked against, or is refused as a whole."""
    record = copy.deepcopy(RECORD)
    place, key = record, data.draw(st.sampled_from(sorted(record)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
    place[key] = data.draw(JSON)
    with contextlib.suppress(aoti.AotiError):
        read(record).layouts()


# -- what the exporter writes --------------------------------------------------------------------

EXPORTED = "alias derived dtypes inplace layouts lookup mlp scalars shared slow tree".split()


@pytest.mark.parametrize("name", EXPORTED)
def test_the_record_agrees_with_the_generated_code(packages, name):
    with Package(packages / f"{name}.pt2") as package:
        recorded = package.signature().inputs
        generated = read_inputs(package.source())
    for ours, theirs in zip(recorded, generated, strict=True):
        assert (ours.dtype, ours.device, ours.mutated) == (
            theirs.dtype, theirs.device, theirs.mutated,
        )  # fmt: skip
        assert ours.order() == theirs.order()
        if ours.order() is None:
            assert ours.strides == theirs.strides
        for a, b in zip(ours.shape, theirs.shape, strict=True):
            assert a == b or (isinstance(a, Dim) and a.form[1:] == b.form[1:])


def test_the_exporter_records_names_ranges_and_results(packages):
    with Package(packages / "mlp.pt2") as package:
        signature = package.signature()
        assert package.exporter().startswith(f"aoti {aoti.__version__}, torch 2.")
        assert package.device() == "cpu"
        assert package.call_spec() == signature.call_spec
    assert signature.inputs == (
        TensorSpec("x", "float32", (Dim("batch", 1, 1024), 10), ("10", "1"), "cpu"),
    )
    (output,) = signature.outputs
    assert (output.name, output.dtype, output.shape) == (
        "output", "float32", (Dim("batch", 1, 1024), 1),
    )  # fmt: skip


def test_sizes_that_depend_on_each_other_keep_their_names(packages):
    with Package(packages / "derived.pt2") as package:
        x, y = package.signature().inputs
    assert x.shape == (Dim("rows", 2, 100), 2)
    assert y.shape == (Dim("2*rows + 1", 5, 201), 2)


def test_the_model_is_called_by_the_names_of_its_parameters(packages):
    x, y = np.ones((4, 3), np.float32), np.ones((4, 5), np.float32)
    with aoti.load(packages / "shared.pt2") as model:
        assert [spec.name for spec in model.inputs] == ["x", "y"]
        expected = model(x, y).tolist()
        assert model(y=y, x=x).tolist() == model(x, y=y).tolist() == expected
        with pytest.raises(
            aoti.InputError, match=r"unexpected argument 'z'; the model takes 'x', 'y'"
        ):
            model(x, z=y)
        with pytest.raises(aoti.InputError, match="missing argument 'y'; the model takes 'x', 'y'"):
            model(x)
        with pytest.raises(aoti.InputError, match=r"spread the tuple"):
            model((x, y))
        with pytest.raises(
            aoti.InputError, match=r"'x' given by position and by keyword; the model takes 'x', 'y'"
        ):
            model(x, y, x=x)


def test_namedtuples_have_their_fields_where_their_class_is_unknown(packages, run_python):
    program = """
import sys, collections, numpy as np, aoti
x = np.ones((3, 4), np.float32)
Pair = collections.namedtuple("Pair", ["first", "second"])
with aoti.load(sys.argv[1]) as model:
    out = model({"x": x, "y": {"z": x}}, [x, x], Pair(x, x), options={"scale": x}, mask=x > 0)
    print(out["pair"]._fields, type(out["pair"]).__name__)
    try:
        model({"x": x, "y": {"z": x}}, [x, x], collections.namedtuple("P", "a b")(x, x),
              options={"scale": x}, mask=x > 0)
    except aoti.InputError as error:
        print(error)
"""
    said = run_python(program, packages / "tree.pt2")
    assert "('first', 'second') Pair" in said
    assert "args[2]: expected a namedtuple with fields 'first', 'second'" in said
