"""Loading, calling, lifetimes, errors."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from functools import partial

import numpy as np
import pytest

import aoti

pytestmark = pytest.mark.engines("auto", "libtorch")

Pair = namedtuple("Pair", ["first", "second"])


def expected_mlp(packages, rows):
    """What eager torch computes, from the weights alone."""
    torch = pytest.importorskip("torch")
    weights = {k: v.numpy() for k, v in torch.load(packages / "mlp.pth").items()}
    hidden = np.maximum(rows @ weights["l1.weight"].T + weights["l1.bias"], 0)
    return 1 / (1 + np.exp(-(hidden @ weights["l2.weight"].T + weights["l2.bias"])))


# -- calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 8, 1024])
def test_a_call_gives_what_the_module_gives(packages, mlp, batch):
    rows = np.random.default_rng(batch).standard_normal((batch, 10), dtype=np.float32)
    np.testing.assert_allclose(mlp(rows), expected_mlp(packages, rows), atol=1e-6)


def test_all_ways_to_run_agree(mlp, rows):
    called = mlp(rows)
    assert mlp.run([rows])[0].tolist() == called.tolist()
    assert mlp.run((rows,))[0].tolist() == called.tolist()
    result = mlp.infer([rows])
    assert result.outputs[0].tolist() == called.tolist()
    assert result.latency_ms > 0
    assert result.memory_bytes is None
    boxed = [rows]
    assert mlp.boxed_run(boxed)[0].tolist() == called.tolist()
    assert boxed == []


def test_a_tree_of_arguments_comes_back_as_the_exported_tree(packages):
    x, y = np.full((3, 4), 3, np.float32), np.full((3, 4), 2, np.float32)
    mask = np.zeros((3, 4), bool)
    kwargs = {"mask": mask, "options": {"scale": y}}  # in another order than exported
    with aoti.load(packages / "tree.pt2") as model:
        out = model({"y": {"z": y}, "x": x}, [x, y], Pair(x, y), **kwargs)
    assert list(out) == ["sum", "list", "pair", "mask"]
    assert out["sum"][0, 0] == 5
    assert isinstance(out["list"], list)
    assert isinstance(out["list"][1], tuple)
    assert (out["list"][0][0, 0], out["list"][1][0][0, 0]) == (6, 3)
    first, second = out["pair"]  # its class is not imported here, and its fields are not recorded
    assert (first[0, 0], second[0, 0]) == (1, 4)
    assert isinstance(out["mask"], OrderedDict)
    assert out["mask"]["inverse"].all()


class Odd(dict):
    """A dict that says that it holds what it does not."""

    def __getitem__(self, key):
        return super().get(key, None)

    def __contains__(self, key):
        return True


def unusual_arguments():
    x = np.full((3, 4), 3, np.float32)
    usual = [{"x": x, "y": {"z": x}}, [x, x], Pair(x, x)]
    options = {"options": {"scale": x}, "mask": x > 0}
    swap = {
        "as exported": {},
        "an OrderedDict": {0: OrderedDict(y=OrderedDict(z=x), x=x)},
        "a defaultdict": {0: defaultdict(lambda: x, x=x, y={"z": x})},
        "a defaultdict that would invent": {0: defaultdict(lambda: x, x=x, w=x)},
        "a dict that lies": {0: Odd(x=x, w=x)},
        "a key too many": {0: {"x": x, "y": {"z": x}, "w": x}},
        "a key too few": {0: {"x": x}},
        "another key": {0: {"x": x, "z": {"z": x}}},
        "an array for a dict": {0: x},
        "a tuple for a list": {1: (x, x)},
        "a longer list": {1: [x, x, x]},
        "a list for an array": {1: [x, [x]]},
        "None for an array": {1: [x, None]},
        "a tuple for a namedtuple": {2: (x, x)},
        "another namedtuple": {2: namedtuple("Pair", "first third")(x, x)},
        "a namedtuple's child": {
            2: type("Child", (Pair,), {"__iter__": lambda self: iter("ab")})(x, x)
        },
    }
    for name, changes in swap.items():
        yield pytest.param([changes.get(n, it) for n, it in enumerate(usual)], options, id=name)
    yield pytest.param(usual[:2], options, id="an argument too few")
    yield pytest.param([*usual, x], options, id="an argument too many")
    yield pytest.param(usual, {"mask": x > 0}, id="a keyword too few")
    yield pytest.param(usual, {**options, "more": x}, id="a keyword too many")
    yield pytest.param(usual, {**options, "outputs": "dlpack"}, id="an option")


@pytest.mark.parametrize(("args", "kwargs"), list(unusual_arguments()))
def test_the_short_way_into_the_core_gives_what_the_long_way_gives(packages, args, kwargs):
    def outcome(call):
        try:
            out = call(*args, **kwargs)
        except aoti.InputError as error:
            return type(error), str(error)
        leaves = [out["sum"], *out["list"][:1], *out["list"][1], *out["pair"]]
        return [type(leaf) for leaf in leaves], [np.asarray(leaf).tolist() for leaf in leaves]

    with aoti.load(packages / "tree.pt2") as model:
        assert outcome(model) == outcome(partial(aoti.AOTIModel.__call__, model))


def test_names_and_specs_are_those_of_the_call(packages):
    with aoti.load(packages / "tree.pt2") as model:
        names = [spec.name for spec in model.inputs]
        assert names[:2] == ["x", "z"]
        assert names[-2:] == ["scale", "mask"]
        assert model.inputs[-1].dtype == "bool"
        assert model.inputs[0].shape == (3, 4)
        assert len(model.outputs) == 6


def test_a_type_only_the_exporter_knows_leaves_run_usable(packages):
    x = np.ones((3, 4), np.float32)
    with aoti.load(packages / "registered.pt2") as model:
        with pytest.raises(aoti.PackageError, match=r"packages\.Result.*run\(\)"):
            model(x)
        assert model.run([x])[0].tolist() == (x + 1).tolist()


def test_arguments_that_are_no_tensors_are_ignored_with_one_warning(packages, recwarn):
    x = np.ones((3, 4), np.float32)
    with aoti.load(packages / "stock_scalars.pt2") as model:
        with pytest.warns(UserWarning, match="compiled in at the export"):
            assert model(x, 3).tolist() == (x * 3).tolist()
        assert model(x, 3).tolist() == (x * 3).tolist()
        with pytest.raises(aoti.InputError, match="takes 1 arrays, got 0"):
            model(None, 3)


def test_arguments_that_are_no_tensors_must_be_those_of_the_export(packages):
    x = np.ones((3, 4), np.float32)
    with aoti.load(packages / "scalars.pt2") as model:
        assert model(x, 3).tolist() == model(n=3, x=x).tolist() == (x * 3).tolist()
        assert [str(spec) for spec in model.signature.arguments] == ["float32 (3, 4)", "3"]
        assert len(model.inputs) == 1
        with pytest.raises(aoti.InputError, match=r"args\[1\]: .* exported with 3, got 4"):
            model(x, 4)
        with pytest.raises(aoti.InputTypeError, match="exported with 3, got ndarray"):
            model(3, x)
        assert model.run([x])[0].tolist() == (x * 3).tolist()


def test_an_index_out_of_range_is_an_error_before_anything_runs(packages):
    with aoti.load(packages / "lookup.pt2") as model:
        assert model.inputs[0].values == (-5, 4)
        for index in ([5], [-6], [0, 1, 99]):
            with pytest.raises(
                aoti.InputError, match=r"args\[0\] \(index\): expected values in -5"
            ):
                model(np.array(index))
        assert model(np.array([-5, 4])).tolist() == [[0, 1, 2, 3], [16, 17, 18, 19]]


def test_sizes_out_of_the_exported_range_are_refused(mlp):
    assert mlp(np.zeros((1, 10), np.float32)).shape == (1, 1)
    assert mlp(np.zeros((1024, 10), np.float32)).shape == (1024, 1)
    for size in (0, 1025):
        with pytest.raises(
            aoti.InputError, match=rf"dimension 0 is {size}, but must be in 1\.\.1024"
        ):
            mlp(np.zeros((size, 10), np.float32))


def test_sizes_that_only_generated_code_limits_warn_once(packages, mlp, recwarn):
    with aoti.load(packages / "stock.pt2") as model:
        one = np.ones((1, 10), np.float32)
        with pytest.warns(UserWarning, match=r"dimension 0 is 1, .* in 2\.\.1024 .*narrower"):
            assert np.allclose(model(one), mlp(one))
        assert np.allclose(model(one), mlp(one))
        assert model(np.zeros((2000, 10), np.float32)).shape == (2000, 1)


def test_without_validation_arrays_are_taken_for_what_the_model_wants(packages, mlp, rows):
    with aoti.load(packages / "mlp.pt2", validate=False) as model:
        assert model(rows).tolist() == mlp(rows).tolist()
        with pytest.raises(aoti.InputTypeError):
            model(rows.tolist())
        with pytest.raises(aoti.InputError):
            model(rows, rows)
    x = np.ones((3, 4), np.float32)
    with aoti.load(packages / "scalars.pt2", validate=False) as model:
        assert model(x.view(np.int32), 3).tolist() == (x * 3).tolist()


def test_every_shared_dtype_passes_without_a_copy(packages):
    names = "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 "
    names += "float16 float32 float64 complex64 complex128"
    arrays = {name: np.arange(6).reshape(2, 3).astype(name) for name in names.split()}
    with aoti.load(packages / "dtypes.pt2") as model:
        out = model(**arrays)
    for name, array in arrays.items():
        assert out[name].dtype == array.dtype
        assert np.array_equal(out[name], array)
        assert np.shares_memory(out[name], array), name


def test_both_spellings_of_int64_are_int64(packages):
    index = np.array([1, 2], dtype=np.longlong)
    with aoti.load(packages / "lookup.pt2") as model:
        assert model(index)[0].tolist() == [4, 5, 6, 7]
        assert model(index.astype(np.int_))[1].tolist() == [8, 9, 10, 11]


# -- what is checked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        (
            np.ones((3, 10)),
            aoti.InputTypeError,
            r"args\[0\] \(x\): expected float32 .* got float64",
        ),
        (np.ones((3, 10), np.float16), aoti.InputTypeError, "got float16"),
        (np.ones((3, 10), np.int32), aoti.InputTypeError, "got int32"),
        (np.ones((3, 9), np.float32), aoti.InputError, "dimension 1 must be 10, not 9"),
        (np.ones((3, 11), np.float32), aoti.InputError, "dimension 1 must be 10, not 11"),
        (np.ones(10, np.float32), aoti.InputError, "expected 2 dimensions"),
        (np.ones((3, 10, 1), np.float32), aoti.InputError, "expected 2 dimensions"),
        (np.float32(1), aoti.InputError, "expected 2 dimensions"),
        (np.array([["x"] * 10]), aoti.InputTypeError, "torch has no dtype for"),
        (np.array([[None] * 10]), aoti.InputTypeError, "torch has no dtype for"),
        ([[1.0] * 10], aoti.InputTypeError, "got a list of 1"),
        (None, aoti.InputTypeError, "got NoneType"),
        (1.0, aoti.InputTypeError, "got float"),
        ("rows", aoti.InputTypeError, "got str"),
    ],
)
def test_a_wrong_argument_is_a_clear_error(mlp, rows, argument, error, message):
    with pytest.raises(error, match=message):
        mlp(argument)
    assert mlp(rows).shape == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "missing argument 'x'"), ((1, 2), "takes 1 positional argument, got 2")],
)
def test_a_wrong_number_of_arguments_is_a_clear_error(mlp, arguments, words):
    with pytest.raises(aoti.InputError, match=words):
        mlp(*arguments)
    with pytest.raises(aoti.InputError, match=f"takes 1 input, got {len(arguments)}"):
        mlp.run(list(arguments))


def test_outputs_go_to_the_arrays_of_any_iterable(mlp, rows):
    (given,) = mlp.run([rows], out=(np.empty((len(rows), 1), np.float32) for _ in range(1)))
    np.testing.assert_array_equal(given, mlp(rows))


def test_boxed_inputs_that_do_not_agree_are_refused_with_both_sizes(packages):
    with aoti.load(packages / "derived.pt2") as model:
        boxed = [np.ones((4, 2), np.float32), np.ones((11, 2), np.float32)]
        with pytest.raises(aoti.InputError, match=r"is 11, but must be 9, as dimension 0 .* is 4"):
            model.boxed_run(boxed)
        assert boxed == []


def test_run_wants_a_list_and_boxed_run_a_list_to_empty(mlp, rows):
    with pytest.raises(aoti.InputTypeError, match="run takes a list of arrays"):
        mlp.run(rows)
    with pytest.raises(aoti.InputTypeError, match="run takes a list of arrays"):
        mlp.infer(rows)
    with pytest.raises(aoti.InputTypeError, match="empties a list"):
        mlp.boxed_run((rows,))


def test_sizes_that_inputs_share_must_agree(packages):
    x, y = np.ones((3, 3), np.float32), np.ones((4, 5), np.float32)
    with aoti.load(packages / "shared.pt2") as model:
        with pytest.raises(
            aoti.InputError, match=r"args\[1\] \(y\): dimension 0 is 4, but must be 3"
        ):
            model(x, y)
        assert model(x, y[:3]).shape == (3, 3)


@pytest.mark.parametrize(
    "disturb",
    [
        lambda a: a[::-1],
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: a.astype(">f4"),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.frombuffer(b"\0" + a.tobytes(), np.float32, offset=1).reshape(a.shape),
    ],
    ids=["reversed", "fortran", "strided", "byteswapped", "broadcast", "misaligned"],
)
def test_a_layout_the_kernels_do_not_take_is_copied(packages, mlp, rows, disturb):
    array = disturb(rows)
    np.testing.assert_allclose(mlp(array), expected_mlp(packages, array.astype("f4")), atol=1e-6)


def test_exported_layouts_are_honoured(packages):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 3, 4, 5), dtype=np.float32)
    matrix = rng.standard_normal((3, 4), dtype=np.float32)
    with aoti.load(packages / "layouts.pt2") as model:
        wanted = [image * 2, matrix + 1, matrix - 1]
        for got, want in zip(model(image, matrix, matrix), wanted, strict=True):
            np.testing.assert_array_equal(got, want)
        channels_last = image.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        transposed, strided = matrix.T.copy().T, np.repeat(matrix, 2, axis=1)[:, ::2]
        got = model(channels_last, transposed, strided)
        for array, want in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(array, want)


def test_sizes_that_depend_on_each_other_must_fit(packages):
    x, y = np.ones((3, 2), np.float32), np.ones((7, 2), np.float32)
    with aoti.load(packages / "derived.pt2") as model:
        assert model(x, y) == 20
        with pytest.raises(aoti.InputError, match=r"dimension 0 is 7, but must be 9"):
            model(np.ones((4, 2), np.float32), y)
        with pytest.raises(aoti.InputError, match="dimension 0 is 8, but must be"):
            model(x, np.ones((8, 2), np.float32))


def test_an_input_that_the_model_writes_to_must_be_one_it_can_write_to(packages):
    x, y = np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)
    with aoti.load(packages / "inplace.pt2") as model:
        assert [spec.mutated for spec in model.inputs] == [True, False]
        assert model(x, y) == 13
        assert x.tolist() == y.tolist()
        y.flags.writeable = False  # only read
        read_only = x.copy()
        read_only.flags.writeable = False
        for array in (read_only, np.asfortranarray(x), x[::-1]):
            before = array.copy()
            with pytest.raises(
                aoti.InputError, match=r"args\[0\] \(x\): the model writes into this"
            ):
                model(array, y)
            assert array.tolist() == before.tolist()


def test_masked_arrays_are_refused_and_other_subclasses_are_arrays(mlp, rows):
    with pytest.raises(aoti.InputTypeError, match=r"\.filled\("):
        mlp(np.ma.masked_array(rows, mask=rows > 0))
    assert mlp(rows.view(np.matrix)).tolist() == mlp(rows).tolist()
