"""Where weights come from, and whose memory they are in."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import aoti
from aoti import loading

pytestmark = pytest.mark.engines("auto", "libtorch")

SHAPES = {"l1.weight": (16, 10), "l1.bias": (16,), "l2.weight": (1, 16), "l2.bias": (1,)}
PLACES = ("inside", "blob", "pickles", "bare")


@pytest.fixture
def bare(weight_packages):
    """A model that comes without weights."""
    with aoti.load(weight_packages / "bare.pt2") as model:
        yield model


# -- where weights come from ---------------------------------------------------------------------


def test_weights_work_wherever_the_package_has_them(model, state, rows, right, equal):
    assert right(model, state, rows)
    assert equal(model.extract_constants(), state)
    assert {c.fqn: c.shape for c in model.constants} == SHAPES
    assert all((c.dtype, c.kind, c.loaded) == ("float32", "parameter", True)
               for c in model.constants)  # fmt: skip
    assert [c.nbytes for c in model.constants] == [640, 64, 64, 4]


def test_a_file_of_weights_is_mapped_read_only(weight_packages):
    with aoti.load(weight_packages / "blob.pt2") as model:
        name = str(model.info().weights_file)
        (line,) = [line for line in Path("/proc/self/maps").read_text().split("\n") if name in line]
        assert line.split()[1] == "r--s"
        (files,) = model.info().code.glob("data/aotinductor/*")
        assert not list(files.glob("*.blob"))
    assert name not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("cache", [True, False])
def test_the_package_itself_is_mapped_if_asked(
    weight_packages, state, other, rows, right, equal, cache
):
    path = (weight_packages / "blob.pt2").resolve()
    with aoti.load(path, map_source=True, cache=cache) as model:
        assert model.info().weights_file == path
        assert not list(model.info().entry.rglob("weights.bin"))
        assert not list(model.info().entry.rglob("*.blob"))
        (line,) = [
            line for line in Path("/proc/self/maps").read_text().split("\n") if str(path) in line
        ]
        assert line.split()[1] == "r--s"
        assert right(model, state, rows)
        assert equal(model.extract_constants(), state)
        with pickle.loads(pickle.dumps(model)) as again:
            assert again.info().weights_file == path
        model.update_weights(other)
        assert right(model, other, rows)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_two_models_share_what_was_extracted_without_the_weights(
    weight_packages, state, other, rows, right, tmp_path
):
    (link := tmp_path / "link.pt2").symlink_to(weight_packages / "blob.pt2")
    options = {"map_source": True, "cache": False}
    with aoti.load(link, **options) as model:
        aoti.load(weight_packages / "blob.pt2", **options).close()
        assert right(model, state, rows)
        model.update_weights(other)
        assert right(model, other, rows)


def test_the_checksum_of_mapped_weights_is_verified(weight_packages, tmp_path):
    path = tmp_path / "damaged.pt2"
    content = bytearray((weight_packages / "blob.pt2").read_bytes())
    with aoti.Package(weight_packages / "blob.pt2") as package:
        content[package.blob("model").offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(aoti.PackageError, match="Bad CRC-32"):
        aoti.load(path, map_source=True)


def test_weights_that_cannot_be_mapped_in_the_package_are_copied(
    weight_packages, state, rows, tmp_path, right
):
    packed = tmp_path / "packed.pt2"
    with (
        zipfile.ZipFile(weight_packages / "blob.pt2") as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    (plain := tmp_path / "plain").mkdir()
    bare = stripped(weight_packages / "blob.pt2", plain)  # which does not tell what is in the file
    for path in (packed, bare, weight_packages / "inside.pt2", weight_packages / "pickles.pt2"):
        with aoti.load(path, map_source=True) as model:
            assert right(model, state, rows)
            assert str(path) not in Path("/proc/self/maps").read_text()
    content = (weight_packages / "blob.pt2").read_bytes()
    with aoti.load(content, map_source=True) as model:
        assert right(model, state, rows)


def test_a_package_that_changes_before_it_is_mapped_is_refused(
    weight_packages, tmp_path, monkeypatch
):
    path = tmp_path / "model.pt2"
    path.write_bytes((weight_packages / "blob.pt2").read_bytes())

    def check(*_):
        path.write_bytes((weight_packages / "half.pt2").read_bytes())

    monkeypatch.setattr(loading, "check_code", check)
    with pytest.raises(aoti.PackageError, match="was changed while it was read"):
        aoti.load(path, map_source=True)


def test_a_model_that_writes_to_its_weights_writes_to_pages_of_its_own(weight_packages):
    x = np.arange(1000, dtype=np.float32)
    with aoti.load(weight_packages / "counter.pt2") as model:
        before = model.info().weights_file.read_bytes()
        assert model.constants[0].kind == "buffer"
        assert model(x).tolist() == (x + 1).tolist()
        assert model.extract_constants()["state"].tolist() == x.tolist()
        assert model.info().weights_file.read_bytes() == before


def test_a_model_without_weights_refuses_to_run_and_names_them(bare, rows):
    assert bare.version == 0
    assert not any(c.loaded for c in bare.constants)
    missing = r"bare.pt2: these weights were never loaded: l1.weight, l1.bias, l2.weight, l2.bias"
    for call in (bare, lambda x: bare.run([x]), lambda x: bare.infer([x])):
        with pytest.raises(aoti.ConstantError, match=missing):
            call(rows)
    with pytest.raises(aoti.ConstantError, match=missing):
        bare.extract_constants()


def test_weights_may_be_loaded_in_parts(bare, state, rows, right):
    bare.load_constants({"l1.weight": state["l1.weight"], "l1.bias": state["l1.bias"]}, full=False)
    assert [c.loaded for c in bare.constants] == [True, True, False, False]
    with pytest.raises(aoti.ConstantError, match=r"never loaded: l2.weight, l2.bias;"):
        bare(rows)
    bare.load_constants({"l2.weight": state["l2.weight"], "l2.bias": state["l2.bias"]}, full=False)
    assert bare.version == 1
    assert right(bare, state, rows)


@pytest.mark.parametrize("name", PLACES)
def test_one_package_serves_many_checkpoints(weight_packages, other, rows, tmp_path, name, right):
    save_file(other, tmp_path / "other.safetensors")
    for weights in (other, tmp_path / "other.safetensors"):
        for map_source in (False, True):
            with aoti.load(
                weight_packages / f"{name}.pt2", weights=weights, map_source=map_source
            ) as model:
                assert (model.version, right(model, other, rows)) == (1, True)


def test_a_pickled_model_comes_back_with_the_file_that_it_was_loaded_with(
    weight_packages, other, rows, tmp_path, right
):
    save_file(other, tmp_path / "other.safetensors")
    bare = weight_packages / "bare.pt2"
    with (
        aoti.load(bare, weights=tmp_path / "other.safetensors", map_source=True) as model,
        pickle.loads(pickle.dumps(model)) as again,
    ):
        assert right(again, other, rows)
    with aoti.load(bare, weights=other) as model, pytest.raises(TypeError, match="from memory"):
        pickle.dumps(model)


def test_a_safetensors_file_is_mapped_if_asked(weight_packages, other, rows, tmp_path, right):
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


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("blob", True),
        ("inside", True),
        ("same", True),
        ("counter", True),  # writes to its weights, which all runners have in one place
        ("frozen", False),  # does not tell what its weights are
        ("fold", False),
        ("fold_inside", False),
        ("table8_inside", False),
    ],
)
def test_runners_of_small_models_whose_weights_stay_run_apart(weight_packages, name, apart):
    with aoti.load(weight_packages / f"{name}.pt2", num_runners=2) as model:
        assert model.info().containers == (2 if apart else 1)


@pytest.mark.parametrize("options", [{"num_runners": 3}, {"single_threaded": True}], ids=str)
@pytest.mark.parametrize("name", ["fold", "fold_inside"])
def test_what_is_folded_is_folded_for_every_runner(weight_packages, name, options):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)

    def right(weights):
        vectors = [value for key, value in weights.items() if key != "weight"]
        wanted = x @ (weights["weight"].T * 2 + 1) + sum(vectors)
        with ThreadPoolExecutor(3) as pool:
            return all(np.allclose(y, wanted) for y in pool.map(model, [x] * 60))

    with aoti.load(weight_packages / f"{name}.pt2", **options) as model:
        weights = model.extract_constants()
        assert right(weights)
        for factor in (2, 3):
            weights = {key: value * factor for key, value in weights.items()}
            model.update_weights(weights)
            assert right(weights)
        model.rollback()
        assert right({key: value / 3 for key, value in weights.items()})


def test_runners_share_the_weights_that_a_model_writes_to(weight_packages):
    x = np.arange(1000, dtype=np.float32)
    with aoti.load(weight_packages / "counter.pt2", num_runners=3) as model:
        with ThreadPoolExecutor(3) as pool:
            for y in pool.map(model, [x] * 60):
                np.testing.assert_array_equal(y, x + 1)
        np.testing.assert_array_equal(model.extract_constants()["state"], x)


def test_stripped_of_its_source_a_package_is_read_by_libtorch(
    weight_packages, state, other, rows, tmp_path, right, equal
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
        with pytest.raises(aoti.ConstantError, match="does not describe their shapes"):
            model.load_constants(state)
    with pytest.raises(aoti.PackageError, match="as pickles, and does not say how"):
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
        (
            lambda name, data: pickled(data, b"cposix\nsystem\n."),
            "contains more than a tensor: posix",
        ),
        (lambda name, data: pickled(data, b"ctorch\nFloatStorage\n."), "does not contain a tensor"),
        (lambda name, data: pickled(data, b"I7\n."), "does not contain a tensor"),
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

    with pytest.raises(aoti.PackageError, match="does not belong to its compiled code"):
        aoti.load(rewritten(weight_packages / "blob.pt2", tmp_path, change))


# -- whose memory ----------------------------------------------------------------------------------


def test_the_callers_arrays_are_copied_unless_shared(model, other, rows, right):
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


def test_shared_arrays_live_as_long_as_they_are_used(model, other, rows, right):
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
        ("l1.weight", np.asfortranarray(other["l1.weight"]), "strides must be"),
        ("l1.bias", np.repeat(other["l1.bias"], 2)[::2], "strides must be"),
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


def test_extracted_weights_are_copies(model, state, rows, right):
    for array in model.extract_constants().values():
        array.fill(0)
    assert right(model, state, rows)


def test_dtypes_that_numpy_lacks_and_other_layouts(weight_packages, tmp_path, equal):
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
