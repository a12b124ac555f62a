"""Weights: mapped, checked, replaced while the model runs, and read back."""

from __future__ import annotations

import io
import json
import mmap
import sys
import threading
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import aoti

SHAPES = {"l1.weight": (16, 10), "l1.bias": (16,), "l2.weight": (1, 16), "l2.bias": (1,)}
PLACES = ("inside", "blob", "pickles")


@pytest.fixture(scope="module")
def state(weight_packages) -> dict[str, np.ndarray]:
    """The weights that the 10-16-1 network was exported with."""
    return {name: value.numpy() for name, value in torch.load(weight_packages / "mlp.pth").items()}


@pytest.fixture(scope="module")
def other(state):
    """Other weights for the same network."""
    dice = np.random.default_rng(3)
    return {k: dice.standard_normal(v.shape, dtype=np.float32) for k, v in state.items()}


def expected(weights, rows):
    hidden = np.maximum(rows @ weights["l1.weight"].T + weights["l1.bias"], 0)
    return 1 / (1 + np.exp(-(hidden @ weights["l2.weight"].T + weights["l2.bias"])))


def right(model, weights, rows) -> bool:
    return np.allclose(model(rows), expected(weights, rows), atol=1e-6)


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


@pytest.fixture(params=PLACES)
def model(request, weight_packages):
    with aoti.load(weight_packages / f"{request.param}.pt2") as model:
        yield model


@pytest.fixture
def bare(weight_packages):
    """A model that comes without weights."""
    with aoti.load(weight_packages / "bare.pt2") as model:
        yield model


# -- where weights come from ---------------------------------------------------------------------


def test_weights_work_wherever_the_package_has_them(model, state, rows):
    assert right(model, state, rows)
    assert equal(model.extract_constants(), state)
    assert {c.fqn: c.shape for c in model.constants} == SHAPES
    assert all((c.dtype, c.kind, c.loaded) == ("float32", "parameter", True)
               for c in model.constants)  # fmt: skip
    assert [c.nbytes for c in model.constants] == [640, 64, 64, 4]


def test_a_file_of_weights_is_mapped_read_only(weight_packages):
    with aoti.load(weight_packages / "blob.pt2") as model:
        name = str(model._extraction.weights)
        (line,) = [line for line in Path("/proc/self/maps").read_text().split("\n") if name in line]
        assert line.split()[1] == "r--s"
        (files,) = model._extraction.path.glob("data/aotinductor/*")
        assert not list(files.glob("*.blob"))
    assert name not in Path("/proc/self/maps").read_text()


def test_a_model_that_writes_to_its_weights_writes_to_pages_of_its_own(weight_packages):
    x = np.arange(1000, dtype=np.float32)
    with aoti.load(weight_packages / "counter.pt2") as model:
        before = model._extraction.weights.read_bytes()
        assert model.constants[0].kind == "buffer"
        assert model(x).tolist() == (x + 1).tolist()
        assert model.extract_constants()["state"].tolist() == x.tolist()
        assert model._extraction.weights.read_bytes() == before


def test_a_model_without_weights_refuses_to_run_and_names_them(bare, rows):
    assert bare.version == 0
    assert not any(c.loaded for c in bare.constants)
    missing = r"bare.pt2: these weights were never loaded: l1.weight, l1.bias, l2.weight, l2.bias"
    for call in (bare, lambda x: bare.run([x]), lambda x: bare.infer([x])):
        with pytest.raises(aoti.ConstantError, match=missing):
            call(rows)
    with pytest.raises(aoti.ConstantError, match=missing):
        bare.extract_constants()


def test_weights_may_be_loaded_in_parts(bare, state, rows):
    bare.load_constants({"l1.weight": state["l1.weight"], "l1.bias": state["l1.bias"]}, full=False)
    assert [c.loaded for c in bare.constants] == [True, True, False, False]
    with pytest.raises(aoti.ConstantError, match=r"never loaded: l2.weight, l2.bias;"):
        bare(rows)
    bare.load_constants({"l2.weight": state["l2.weight"], "l2.bias": state["l2.bias"]}, full=False)
    assert bare.version == 1
    assert right(bare, state, rows)


@pytest.mark.parametrize("name", [*PLACES, "bare"])
def test_one_package_serves_many_checkpoints(weight_packages, other, rows, tmp_path, name):
    save_file(other, tmp_path / "other.safetensors")
    for weights in (other, tmp_path / "other.safetensors"):
        for map_source in (False, True):
            with aoti.load(
                weight_packages / f"{name}.pt2", weights=weights, map_source=map_source
            ) as model:
                assert (model.version, right(model, other, rows)) == (1, True)


def test_a_safetensors_file_is_mapped_if_asked(weight_packages, other, rows, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(other, path)
    with aoti.load(weight_packages / "bare.pt2", weights=path) as model:
        assert str(path) not in Path("/proc/self/maps").read_text()
        path.write_bytes(b"cut short")
        assert right(model, other, rows)
    save_file(other, path)
    with aoti.load(weight_packages / "bare.pt2", weights=path, map_source=True) as model:
        assert str(path) in Path("/proc/self/maps").read_text()
        assert right(model, other, rows)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_stripped_of_its_source_a_package_is_read_by_libtorch(
    weight_packages, state, other, rows, tmp_path
):
    for name in ("blob", "inside"):
        path = stripped(weight_packages / f"{name}.pt2", tmp_path)
        with aoti.load(path) as model:
            assert right(model, state, rows)
            assert equal(model.extract_constants(), state)
            model.update_weights(other)
            assert right(model, other, rows)
    with aoti.load(stripped(weight_packages / "bare.pt2", tmp_path)) as model:
        assert model.constants == ()
        with pytest.raises(aoti.ConstantError, match="does not tell their shapes"):
            model.load_constants(state)
    with pytest.raises(aoti.PackageError, match="as pickles, and does not tell how"):
        aoti.load(stripped(weight_packages / "pickles.pt2", tmp_path))


def stripped(path: Path, directory: Path) -> Path:
    return rewritten(path, directory, lambda name, data: None if name.endswith(".cpp") else data)


def rewritten(path: Path, directory: Path, change) -> Path:
    """A copy of a package with other files in it; None leaves one out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(directory / path.name, "w") as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)
    return directory / path.name


def pickled(data: bytes, pickle: bytes) -> bytes:
    """What torch.save wrote, with another pickle in it; anything else as it is."""
    if not data.startswith(b"PK"):
        return data
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, pickle if name.endswith("data.pkl") else old.read(name))
    return new.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, data: data.replace(b"torch._utils", b"posix.system"), "Bad CRC-32"),
        (lambda name, data: None if name.endswith("weight_0") else data, "no weight 'weight_0'"),
        (lambda name, data: data.replace(b"[16, 10]", b"[160, 1]"), r"l1.weight is \(160, 1\)"),
        (lambda name, data: data.replace(b'"l2.bias"', b'"l2.bios"'), "l2.bias is not in it"),
        (lambda name, data: data[:-9] if "weights_config" in name else data, "is damaged"),
        (lambda name, data: data[:-9] if name.endswith("weight_1") else data, "l1.bias is damaged"),
        (lambda name, data: pickled(data, b"cposix\nsystem\n."), "holds more than a tensor: posix"),
        (lambda name, data: pickled(data, b"ctorch\nFloatStorage\n."), "holds no tensor"),
        (lambda name, data: pickled(data, b"I7\n."), "holds no tensor"),
        (lambda name, data: pickled(data, b"\x80"), "more than a tensor|is damaged"),
        (lambda name, data: pickled(data, b"x" * (2 << 20)), "its pickle is too large"),
    ],
)
def test_pickles_that_are_no_weights(weight_packages, tmp_path, change, words):
    path = rewritten(weight_packages / "pickles.pt2", tmp_path, lambda n, d: change(n, d)
                     if "weight" in n and not n.endswith(".cpp") else d)  # fmt: skip
    with pytest.raises(aoti.PackageError, match=words):
        aoti.load(path)


def test_source_of_another_model_is_noticed(weight_packages, tmp_path):
    def change(name, data):
        return data.replace(b'name = "l1_bias"', b'name = "l1_boas"')

    with pytest.raises(aoti.PackageError, match="is not that of its compiled code"):
        aoti.load(rewritten(weight_packages / "blob.pt2", tmp_path, change))


# -- what is refused -----------------------------------------------------------------------------


class Far:
    """An array that says that it lies on a GPU."""

    def __dlpack__(self, **_):
        raise AssertionError("nobody may ask")

    def __dlpack_device__(self):
        return (2, 0)


WRONG = {
    "too large": ("l1.weight", np.ones((16, 11), np.float32), r"float32 \(16, 11\) was given"),
    "too small": ("l1.bias", np.ones(15, np.float32), r"l1.bias is float32 \(16,\), and float32"),
    "other rank": ("l1.bias", np.ones((16, 1), np.float32), "was given"),
    "other dtype": ("l1.bias", np.ones(16), r"float64 \(16,\) was given; convert it"),
    "wrong device": ("l1.bias", Far(), "l1.bias: the model runs on the cpu, and this .* on cuda:0"),
    "meta": ("l1.bias", torch.ones(16, device="meta"), "l1.bias: .* cannot be shared"),
    "no array": ("l1.bias", "text", "l1.bias: expected an array"),
    "a list": ("l1.bias", [1.0] * 16, "l1.bias: expected an array"),
    "objects": ("l1.bias", np.ones(16, object), "l1.bias"),
    "masked": ("l1.bias", np.ma.ones(16, np.float32), "l1.bias: models know no masks"),
    "unknown": ("l1.boas", np.ones(16, np.float32), "no constants of these names: l1.boas;"),
    "not a name": (3, np.ones(16, np.float32), "no constants of these names: 3;"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("how", ["load", "update", "share"])
def test_wrong_weights_are_refused_by_name_and_change_nothing(model, state, rows, case, how):
    name, value, words = WRONG[case]
    given = {**state, name: value}
    with pytest.raises(aoti.ConstantError, match=words):
        if how == "update":
            model.update_weights(given)
        else:
            model.load_constants(given, share=how == "share")
    assert (model.version, right(model, state, rows)) == (1, True)


def test_missing_weights_are_named(model, state, rows):
    for change in (model.load_constants, model.update_weights):
        with pytest.raises(aoti.ConstantError, match=r"are missing: l1.bias, l2.weight, l2.bias;"):
            change({"l1.weight": state["l1.weight"]})
    assert (model.version, right(model, state, rows)) == (1, True)


def test_a_view_of_larger_storage_is_taken_by_its_elements(model, other, rows):
    big = {k: np.repeat(v, 3, axis=-1)[..., ::3] for k, v in other.items()}
    model.load_constants(big)
    assert right(model, other, rows)
    rest = {k: torch.from_numpy(np.concatenate([v, v + 9]))[: len(v)] for k, v in other.items()}
    model.load_constants(rest)
    assert right(model, other, rows)


def test_any_layout_and_kind_of_array_is_taken(model, other, rows):
    weights = {
        "l1.weight": np.asfortranarray(other["l1.weight"]),
        "l1.bias": torch.nn.Parameter(torch.from_numpy(other["l1.bias"])),
        "l2.weight": other["l2.weight"][:, ::-1][:, ::-1].astype(">f4"),
        "l2.bias": memoryview(other["l2.bias"]),
    }
    model.update_weights(weights)
    assert right(model, other, rows)
    model.update_weights({"l1.bias": other["l1.bias"][::-1]}, full=False)
    assert right(model, {**other, "l1.bias": other["l1.bias"][::-1]}, rows)


def test_read_only_weights_and_nan_are_taken(model, other, rows):
    frozen = {k: v.copy() for k, v in other.items()}
    for array in frozen.values():
        array.flags.writeable = False
    for share in (False, True):
        model.load_constants(frozen, share=share)
        assert right(model, other, rows)
    model.load_constants({"l2.bias": np.full(1, np.nan, np.float32)}, full=False)
    assert np.isnan(model(rows)).all()


def test_frozen_packages_say_that_their_weights_cannot_be_replaced(weight_packages, state, rows):
    with aoti.load(weight_packages / "frozen.pt2") as model:
        assert right(model, state, rows)
        for weights in (state, {}):
            with pytest.raises(aoti.ConstantError, match="was frozen at the export"):
                model.update_weights(weights)
        assert right(model, state, rows)


def test_a_model_without_constants_says_so(packages):
    with aoti.load(packages / "shared.pt2") as model:
        assert (model.constants, model.version, model.extract_constants()) == ((), 1, {})
        with pytest.raises(aoti.ConstantError, match=r"no constants that could be replaced$"):
            model.update_weights({})


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "no .safetensors file, or is cut short"),
        (b"\xff" * 8, "no .safetensors file, or is cut short"),
        (b"{", "no sound .safetensors file"),
        (b"[]", "no sound .safetensors file"),
        ({"l1.bias": {}}, "no sound .safetensors file"),
        ({"l1.bias": {"dtype": "F32", "shape": [16], "data_offsets": [0, 63]}}, "63 bytes for F32"),
        ({"l1.bias": {"dtype": "F32", "shape": [-16], "data_offsets": [0, 64]}}, "that are none"),
        ({"l1.bias": {"dtype": "F32", "shape": [16], "data_offsets": [64, 128]}}, "ends at"),
        ({"l1.bias": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}, r"f4 \(16,\) was"),
        ({"no": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}, "names: no;"),
    ],
)
def test_safetensors_files_that_are_none(model, state, rows, tmp_path, header, words):
    path = tmp_path / "bad.safetensors"
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    data = bytes(64) if header else b""
    path.write_bytes(len(text).to_bytes(8, "little") + text + data if header != b"" else b"")
    if header == b"\xff" * 8:
        path.write_bytes(header)
    for map_source in (False, True):
        with pytest.raises(aoti.ConstantError, match=words):
            model.update_weights(path, map_source=map_source, full=False)
    assert right(model, state, rows)
    with pytest.raises(FileNotFoundError):
        model.update_weights(tmp_path / "none.safetensors")
    with pytest.raises(aoti.ConstantError, match=r"names to arrays, or a \.safetensors file"):
        model.update_weights(tmp_path / "model.pth")


# -- whose memory ----------------------------------------------------------------------------------


def test_the_callers_arrays_are_copied_unless_shared(model, other, rows):
    weights = {k: v.copy() for k, v in other.items()}
    model.load_constants(weights)
    for array in weights.values():
        array.fill(0)
    assert right(model, other, rows)
    model.load_constants(weights, share=True)
    for name, array in weights.items():
        array[:] = other[name]
    assert right(model, other, rows)
    weights["l2.bias"] += 1
    assert right(model, weights, rows)
    shared = weights.copy()
    del weights
    model.load_constants(other)
    shared["l2.bias"] += 1
    assert right(model, other, rows)


def test_shared_arrays_live_as_long_as_they_are_used(model, other, rows):
    import weakref

    weights = {k: v.copy() for k, v in other.items()}
    alive = [weakref.ref(array) for array in weights.values()]
    model.load_constants(weights, share=True)
    del weights
    assert all(ref() is not None for ref in alive)
    assert right(model, other, rows)
    model.load_constants(other)
    assert all(ref() is None for ref in alive)


def test_what_cannot_be_shared_is_refused(model, other):
    padded = np.zeros(16 * 4 + 1, np.uint8)[1:].view(np.float32)
    for name, value, words in (
        ("l1.weight", np.asfortranarray(other["l1.weight"]), "takes strides"),
        ("l1.bias", np.repeat(other["l1.bias"], 2)[::2], "takes strides"),
        ("l1.bias", other["l1.bias"].astype(">f4"), "cannot be shared"),
        ("l1.bias", padded, "cannot be shared: it is not aligned"),
        ("l1.bias", other["l1.bias"][::-1], "cannot be shared: its strides are negative"),
    ):
        with pytest.raises(aoti.ConstantError, match=f"{name}.*{words}"):
            model.load_constants({**other, name: value}, share=True)


def test_a_model_that_writes_does_not_share_what_is_read_only(weight_packages):
    state = np.zeros(1000, np.float32)
    x = np.arange(1000, dtype=np.float32)
    with aoti.load(weight_packages / "counter.pt2") as model:
        model.load_constants({"state": state}, share=True)
        model(x)
        assert state.tolist() == x.tolist()
        state.flags.writeable = False
        with pytest.raises(aoti.ConstantError, match=r"state: .* read-only"):
            model.load_constants({"state": state}, share=True)


def test_outputs_that_are_weights_are_copies(weight_packages):
    x = np.ones(64, np.float32)
    for name in ("same", "same_inside"):
        with aoti.load(weight_packages / f"{name}.pt2") as model:
            out = model(x)[2]
            out.fill(7)
            assert model(x)[2].tolist() == [1] * 64
            model.update_weights({"first": x * 3, "second": x * 3}, keep=False)
            assert (out.tolist(), model(x)[2].tolist()) == ([7] * 64, [3] * 64)


def test_extracted_weights_are_copies(model, state, rows):
    for array in model.extract_constants().values():
        array.fill(0)
    assert right(model, state, rows)


def test_dtypes_that_numpy_lacks_and_other_layouts(weight_packages, tmp_path):
    x = np.eye(4, dtype=np.float32)[:3]
    with aoti.load(weight_packages / "half.pt2") as model:
        found = model.extract_constants()
        assert found["low"].dtype == ml_dtypes.bfloat16
        turned = np.arange(12, dtype=np.float32).reshape(3, 4).T
        assert found["turned"].tolist() == turned.tolist()
        new = {"low": np.eye(4).astype(ml_dtypes.bfloat16) * 2, "turned": turned + 1}
        model.update_weights(new)
        assert model(x).tolist() == (x * 2 @ (turned + 1)).tolist()
        assert equal(model.extract_constants(), new)
        # A header of odd length: what follows is not aligned.
        document = {
            "low": {"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 32]},
            "turned": {"dtype": "F32", "shape": [4, 3], "data_offsets": [32, 80]},
        }
        text = json.dumps(document).encode()
        text += b" " * (1 - len(text) % 2)
        content = len(text).to_bytes(8, "little") + text
        content += new["low"].tobytes() + np.ascontiguousarray(turned).tobytes()
        (tmp_path / "odd.safetensors").write_bytes(content)
        for map_source in (False, True):
            model.update_weights(tmp_path / "odd.safetensors", map_source=map_source)
            assert model(x).tolist() == (x * 2 @ turned).tolist()


# -- updates ---------------------------------------------------------------------------------------


def test_versions_and_rollback(model, state, other, rows):
    third = {k: v + 1 for k, v in other.items()}
    assert (model.version, model.infer([rows]).version) == (1, 1)
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    assert model.update_weights(other) == 2
    assert right(model, other, rows)
    assert model.infer([rows]).version == 2
    assert model.update_weights(third) == 3
    assert model.rollback() == 2
    assert (right(model, other, rows), model.infer([rows]).version) == (True, 2)
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    assert model.update_weights(state) == 4
    model.load_constants(other)
    assert model.version == 5
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    model.update_weights(third, keep=False)
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    assert right(model, third, rows)


def test_a_part_of_the_weights_may_be_replaced(model, state, other, rows):
    model.update_weights({"l2.bias": other["l2.bias"]}, full=False)
    assert right(model, {**state, "l2.bias": other["l2.bias"]}, rows)
    model.update_weights({"l1.bias": other["l1.bias"]}, full=False)
    now = {**state, "l2.bias": other["l2.bias"], "l1.bias": other["l1.bias"]}
    assert right(model, now, rows)
    assert equal(model.extract_constants(), now)
    model.rollback()
    assert right(model, {**state, "l2.bias": other["l2.bias"]}, rows)


@pytest.mark.parametrize("name", ["fold", "fold_inside"])
def test_what_is_computed_from_weights_is_computed_anew(weight_packages, name):
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)

    def wanted(w):
        return x @ (w["weight"].T * 2 + 1) + w["bias"] + w["offset"] + w["_tensor_constant0"]

    with aoti.load(weight_packages / f"{name}.pt2") as model:
        weights = model.extract_constants()
        assert {c.fqn: c.kind for c in model.constants} == {
            "weight": "parameter", "bias": "parameter", "offset": "buffer",
            "_tensor_constant0": "constant",
        }  # fmt: skip
        for number in range(2, 6):
            assert np.allclose(model(x), wanted(weights))
            weights = {k: v + number for k, v in weights.items()}
            model.update_weights(weights)
            assert np.allclose(model(x), wanted(weights))
            # What is no parameter may be left out.
            weights |= {"weight": weights["weight"] * 2, "bias": weights["bias"] - 1}
            model.update_weights({k: weights[k] for k in ("weight", "bias")})
        assert np.allclose(model(x), wanted(weights))


def test_a_bound_call_sees_new_weights(model, other, rows):
    bound = model.bind(rows)
    bound()
    model.update_weights(other)
    assert np.allclose(bound(), expected(other, rows), atol=1e-6)


def test_a_closed_model_takes_no_weights(weight_packages, state):
    model = aoti.load(weight_packages / "blob.pt2")
    model.close()
    for call in (lambda: model.load_constants(state), lambda: model.update_weights(state),
                 model.rollback, model.extract_constants):  # fmt: skip
        with pytest.raises(aoti.ModelClosedError):
            call()


def test_an_array_that_calls_back_meets_a_lock_of_its_own(model, state):
    """What is given is looked at before anything is locked by the core."""
    other = aoti.load(model.path)

    class Nosy(np.ndarray):
        def __array_finalize__(self, _):
            if other.version == 1:
                other.load_constants(state)

    model.load_constants({**state, "l2.bias": state["l2.bias"].view(Nosy)})
    other.close()


@pytest.fixture
def quick_switches():
    """Threads get the GIL more often, so that busy ones leave some of it to the others."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("name", ["same", "same_inside"])
@pytest.mark.parametrize("fail", [False, True])
def test_swaps_under_traffic(weight_packages, name, fail, quick_switches):
    """Every answer belongs to exactly one set of weights, and its version says which."""
    swaps, threads = 1000, 8
    x = np.ones(64, np.float32)
    sets = [{"first": x * n, "second": x * n} for n in (3, 5)]
    wrong, versions = [], {1: 1.0}
    done = threading.Event()

    def work():
        while not done.is_set():
            result = model.infer([x])
            values = {float(v) for out in result.outputs for v in (out.min(), out.max())}
            if len(values) != 1:
                wrong.append(values)
            seen.add((result.version, values.pop()))

    seen: set[tuple[int, float]] = set()
    with aoti.load(weight_packages / f"{name}.pt2", num_runners=4) as model:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            for n in range(swaps):
                if fail and n % 3 == 2:
                    version = model.version
                    with pytest.raises(aoti.ConstantError):
                        model.update_weights({**sets[n % 2], "second": x[:63]})
                    assert model.version == version
                else:
                    versions[model.version + 1] = float(sets[n % 2]["first"][0])
                    model.update_weights(sets[n % 2])
                if n == swaps // 5:
                    before = anonymous()
            after = anonymous()
        finally:
            done.set()
            for worker in workers:
                worker.join()
        assert wrong == []
        assert all(versions[version] == value for version, value in seen)
        assert len(seen) > 10
        assert after - before < 4 << 20, (before, after)


def anonymous() -> int:
    """Bytes of private memory of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(text.partition("\nAnonymous:")[2].split()[0])


def test_updates_take_turns(model, state, rows, quick_switches):
    sets = [{k: v + n for k, v in state.items()} for n in range(4)]
    found = []

    def work(weights):
        for _ in range(20):
            found.append(model.update_weights(weights))

    workers = [threading.Thread(target=work, args=(weights,)) for weights in sets]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert model.version == 81
    assert any(right(model, weights, rows) for weights in sets)


def test_a_close_in_the_middle_of_updates(weight_packages, state):
    for _ in range(10):
        model = aoti.load(weight_packages / "blob.pt2")
        closed = []

        def work(model=model, closed=closed):
            try:
                while True:
                    model.update_weights(state)
            except aoti.ModelClosedError:
                closed.append(True)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        model.close()
        for worker in workers:
            worker.join()
        assert closed == [True, True]
        assert str(model._extraction.weights) not in Path("/proc/self/maps").read_text()


def test_a_fork_in_the_middle_of_updates(run_python, weight_packages):
    """The child goes on, with updates of its own."""
    program = """
import os, sys, threading, warnings, numpy as np, aoti
warnings.simplefilter("ignore")
model = aoti.load(sys.argv[1], intra_op_threads=1)
state = model.extract_constants()
done = threading.Event()
def work():
    while not done.is_set():
        model.update_weights(state)
thread = threading.Thread(target=work)
thread.start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        before = model.version
        ok = model.update_weights(state) > before and model.rollback() >= before
        os._exit(0 if ok else 1)
    codes.append(os.waitpid(pid, 0)[1])
done.set()
thread.join()
print(set(codes))
"""
    assert run_python(program, weight_packages / "blob.pt2", check=True) == "{0}\n"


# -- memory and time -------------------------------------------------------------------------------

INDEX = np.zeros(4, np.int64)


def test_a_load_costs_no_copies(weight_packages):
    with aoti.load(weight_packages / "table250.pt2") as model:  # now it is in the cache
        assert model(INDEX).tolist() == [512.0] * 4
    before = anonymous()
    with aoti.load(weight_packages / "table250.pt2", warmup=True) as model:
        assert model(INDEX).tolist() == [512.0] * 4
        assert anonymous() - before < 20 << 20


def test_cycles_of_loading_leave_no_memory(weight_packages):
    def cycle():
        with aoti.load(weight_packages / "table50.pt2", warmup=True) as model:
            model(INDEX)

    for _ in range(10):
        cycle()
    before = anonymous()
    for _ in range(100):
        cycle()
    assert anonymous() - before < 5 << 20


def test_updates_free_what_they_replace(weight_packages):
    weights = {"table": np.ones((50 * 256, 1024), np.float32)}
    with aoti.load(weight_packages / "table50.pt2") as model:
        for _ in range(3):
            model.update_weights(weights)
        before = anonymous()
        for _ in range(10):
            model.update_weights(weights)
        assert anonymous() - before < 5 << 20
        model.load_constants(weights)
        assert before - anonymous() > 40 << 20  # the set to go back to
        model.load_constants(weights, share=True)
        assert before - anonymous() > 90 << 20


# Processes that load a model, or are forked from one that has. Each says how much memory it has,
# and how much of that is the file of weights.
PSS = """
import os, sys, numpy as np, aoti
path, count, fork = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fork"
ready, asked, told = os.pipe(), os.pipe(), os.pipe()
def load():
    return aoti.load(path, intra_op_threads=1, warmup=True)
def pss(model):
    text = open("/proc/self/smaps").read()
    weights = text.partition(str(model._extraction.weights))[2].partition("VmFlags")[0]
    return [sum(int(line.split()[1]) << 10 for line in part.split("\\n") if line[:4] == "Pss:")
            for part in (text, weights)]
def serve():
    model = inherited or load()
    model._weights.populate()  # a fork leaves the pages of shared files out
    model.run([np.zeros(4, np.int64)])
    os.write(ready[1], b"x")
    os.read(asked[0], 1)
    os.write(told[1], "{} {}\\n".format(*pss(model)).encode())
    os.read(asked[0], 1)
inherited = load() if fork else None
for _ in range(count):
    if os.fork() == 0:
        try:
            serve()
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
for end in (ready[1], told[1], asked[0]):
    os.close(end)
for _ in range(count):
    assert os.read(ready[0], 1)
os.write(asked[1], b"x" * count)
with os.fdopen(told[0]) as lines:
    found = [map(int, next(lines).split()) for _ in range(count)]
    found += [pss(inherited)] if fork else []
    print(*map(sum, zip(*found)))
    os.write(asked[1], b"x" * count)
while count:
    count -= os.wait()[1] == 0
"""


def test_processes_share_the_weights(weight_packages, run_python, cache_directory):
    """Proportional memory: a page that n processes share counts a nth for each."""

    def total(*how):
        options = {"AOTI_CACHE_DIR": str(cache_directory), "OMP_NUM_THREADS": "1"}
        path = weight_packages / "table250.pt2"
        return tuple(map(int, run_python(PSS, path, *how, **options).split()))

    with aoti.load(weight_packages / "table250.pt2"):  # now it is in the cache
        pass
    weights = 250 << 20
    assert weights <= total(4, "load")[1] < 1.1 * weights
    # And libtorch, if they were forked from a process that had loaded the model.
    (one, _), (four, _) = total(0, "fork"), total(3, "fork")
    assert weights < one and four < 1.3 * one, (one, four)


def test_two_gigabytes_load_at_once(weight_packages, tmp_path):
    """Sparse, so that nothing of it needs to be there: nobody reads it."""
    shape, size = [2048 * 256, 1024], 2048 << 20
    path = tmp_path / "table.safetensors"
    header = json.dumps({"table": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
    header += " " * (-len(header) % 8)  # as the library aligns what follows
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + size)
    before = anonymous()
    with aoti.load(weight_packages / "table2048.pt2", weights=path, map_source=True) as model:
        assert model(INDEX + shape[0] - 1).tolist() == [0.0] * 4
        assert anonymous() - before < 20 << 20


@pytest.mark.slow
def test_two_gigabytes_in_a_package(weight_packages, tmp_path):
    size, blob = 2048 << 20, mmap.mmap(-1, 1 << 20)
    source, path = weight_packages / "table2048.pt2", tmp_path / "table.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
            if name.endswith(".wrapper.so"):
                entry = name.removesuffix(".so") + "_weights.blob"
        with new.open(entry, "w", force_zip64=True) as file:
            for _ in range(size >> 20):
                file.write(blob)
    with aoti.load(path):
        pass
    before = anonymous()
    with aoti.load(path, warmup=True) as model:
        assert model(INDEX).tolist() == [0.0] * 4
        assert anonymous() - before < 20 << 20
