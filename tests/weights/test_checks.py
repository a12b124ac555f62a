"""Weights that are refused, by name, and those that are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import aoti


class Far:
    """An array that says that it lies on a GPU."""

    def __dlpack__(self, **_):
        raise AssertionError("nobody may ask")

    def __dlpack_device__(self):
        return (2, 0)


WRONG = {
    "too large": ("l1.weight", np.ones((16, 11), np.float32), r"float32 \(16, 11\) was given"),
    "too small": ("l1.bias", np.ones(15, np.float32), r"l1.bias is float32 \(16,\), but float32"),
    "other rank": ("l1.bias", np.ones((16, 1), np.float32), "was given"),
    "other dtype": ("l1.bias", np.ones(16), r"float64 \(16,\) was given; convert it"),
    "wrong device": ("l1.bias", Far(), "l1.bias: the model runs on the cpu, and this .* on cuda:0"),
    "meta": ("l1.bias", torch.ones(16, device="meta"), "l1.bias: .* cannot be shared"),
    "no array": ("l1.bias", "text", "l1.bias: expected an array"),
    "a list": ("l1.bias", [1.0] * 16, "l1.bias: expected an array"),
    "objects": ("l1.bias", np.ones(16, object), "l1.bias"),
    "masked": ("l1.bias", np.ma.ones(16, np.float32), "l1.bias: a model does not take masks"),
    "unknown": ("l1.boas", np.ones(16, np.float32), "no constants of these names: l1.boas;"),
    "not a name": (3, np.ones(16, np.float32), "no constants of these names: 3;"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("how", ["load", "update", "share"])
def test_wrong_weights_are_refused_by_name_and_change_nothing(model, state, rows, case, how, right):
    name, value, words = WRONG[case]
    given = {**state, name: value}
    with pytest.raises(aoti.ConstantError, match=words):
        if how == "update":
            model.update_weights(given)
        else:
            model.load_constants(given, share=how == "share")
    assert (model.version, right(model, state, rows)) == (1, True)


def test_missing_weights_are_named(model, state, rows, right):
    for change in (model.load_constants, model.update_weights):
        with pytest.raises(aoti.ConstantError, match=r"are missing: l1.bias, l2.weight, l2.bias;"):
            change({"l1.weight": state["l1.weight"]})
    assert (model.version, right(model, state, rows)) == (1, True)


def test_a_view_of_larger_storage_is_taken_by_its_elements(model, other, rows, right):
    big = {k: np.repeat(v, 3, axis=-1)[..., ::3] for k, v in other.items()}
    model.load_constants(big)
    assert right(model, other, rows)
    rest = {k: torch.from_numpy(np.concatenate([v, v + 9]))[: len(v)] for k, v in other.items()}
    model.load_constants(rest)
    assert right(model, other, rows)


def test_any_layout_and_kind_of_array_is_taken(model, other, rows, right):
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


def test_read_only_weights_and_nan_are_taken(model, other, rows, right):
    frozen = {k: v.copy() for k, v in other.items()}
    for array in frozen.values():
        array.flags.writeable = False
    for share in (False, True):
        model.load_constants(frozen, share=share)
        assert right(model, other, rows)
    model.load_constants({"l2.bias": np.full(1, np.nan, np.float32)}, full=False)
    assert np.isnan(model(rows)).all()


def test_frozen_packages_say_that_their_weights_cannot_be_replaced(
    weight_packages, state, rows, right
):
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
        (b"", "not a .safetensors file, or is truncated"),
        (b"\xff" * 8, "not a .safetensors file, or is truncated"),
        (b"{", "a damaged .safetensors file"),
        (b"[]", "a damaged .safetensors file"),
        ({"l1.bias": {}}, "a damaged .safetensors file"),
        ({"l1.bias": {"dtype": "F32", "shape": [16], "data_offsets": [0, 63]}}, "63 bytes for F32"),
        ({"l1.bias": {"dtype": "F32", "shape": [-16], "data_offsets": [0, 64]}}, "are not valid"),
        ({"l1.bias": {"dtype": "F32", "shape": [16], "data_offsets": [64, 128]}}, "ends at"),
        ({"l1.bias": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}, r"f4 \(16,\) was"),
        ({"no": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}, "names: no;"),
    ],
)
def test_safetensors_files_that_are_none(model, state, rows, tmp_path, header, words, right):
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
