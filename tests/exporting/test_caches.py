"""Models with a cache: containers of tensors go in and come out, and tensors that a module keeps.

The containers are our own, so that the tests do not need transformers, and behave like its caches:
their constructors look at tensors.
"""

from __future__ import annotations

import sys
from collections import UserDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import aoti

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/examples"))
from generate import generate

VOCABULARY, HEADS, WIDTH = 31, 2, 8
PROMPT = [3, 1, 4, 1, 5]
SIZES = {"input_ids": {0: "batch=1..4", 1: "new=1..32"}, "cache": {0: "batch", 2: "past=0..32"}}


class Layer:
    """The keys and values of a layer, which grow."""

    def __init__(self, keys, values) -> None:
        assert keys.device == values.device
        self.keys, self.values = torch.cat([keys]), torch.cat([values])
        self.is_empty = keys.shape[2] == 0

    def update(self, keys, values):
        self.keys = torch.cat([self.keys, keys], 2)
        self.values = torch.cat([self.values, values], 2)
        return self.keys, self.values


class Cache:
    """Registered with torch below."""

    def __init__(self, layers) -> None:
        self.layers = [Layer(*pair) for pair in layers]


class UnknownCache(Cache):
    """Nobody registers this one."""


def parts(cache):
    children = {
        "key_cache": [layer.keys for layer in cache.layers],
        "value_cache": [layer.values for layer in cache.layers],
    }
    return list(children.values()), list(children)


def parts_with_keys(cache):
    values, names = parts(cache)
    return [(pytree.MappingKey(n), v) for n, v in zip(names, values, strict=True)], names


pytree.register_pytree_node(
    Cache, parts, lambda values, _: Cache(zip(*values, strict=True)),
    serialized_type_name="test_caches.Cache", flatten_with_keys_fn=parts_with_keys,
)  # fmt: skip


@dataclass
class Output:
    """An unregistered dataclass."""

    logits: torch.Tensor
    cache: Cache
    loss: torch.Tensor | None = None


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)

    def forward(self, x, update, seen):
        q, k, v = (
            part.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        k, v = update(k, v)
        new, there = q.shape[2], k.shape[2]
        mask = torch.arange(there) <= torch.arange(new)[:, None] + seen
        weights = (q @ k.transpose(2, 3)).masked_fill(~mask, -torch.inf).softmax(-1)
        return x + (weights @ v).transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, HEADS * WIDTH)
        self.positions = nn.Embedding(64, HEADS * WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(HEADS * WIDTH, VOCABULARY)

    def forward(self, input_ids, cache):
        seen = cache.layers[0].keys.shape[2]
        x = self.embed(input_ids) + self.positions(torch.arange(input_ids.shape[1]) + seen)
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            x = block(x, layer.update, seen)
        return Output(self.head(x), cache)


@dataclass
class StaticLayer:
    """Its tensors are neither parameters nor buffers, and are written into."""

    keys: torch.Tensor = field(default_factory=lambda: torch.zeros(1, HEADS, 16, WIDTH))
    values: torch.Tensor = field(default_factory=lambda: torch.zeros(1, HEADS, 16, WIDTH))

    def update(self, place):
        def write(keys, values):
            self.keys.index_copy_(2, place, keys)
            self.values.index_copy_(2, place, values)
            return self.keys, self.values

        return write


class StaticDecoder(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.cache = [StaticLayer() for _ in self.blocks]
        self.register_buffer("first_keys", self.cache[0].keys, persistent=False)
        self.calls = torch.zeros(1, dtype=torch.int64)

    def forward(self, input_ids, position):
        self.calls.add_(1)
        x = self.embed(input_ids) + self.positions(position)
        for block, layer in zip(self.blocks, self.cache, strict=True):
            x = block(x, layer.update(position), position)
        return self.head(x), self.calls + 0


class Batch(UserDict):
    """Like the result of a tokenizer: a mapping with attributes."""


@dataclass(slots=True)
class Slots:
    ids: torch.Tensor
    scale: int


class Mixed(nn.Module):
    """Takes containers of several kinds, and returns others."""

    def forward(self, batch, slots):
        return Batch(ids=batch["ids"] * slots.scale, pair=[Slots(slots.ids + 1, slots.scale)])


class Keeps(nn.Module):
    """Keeps its last row in an attribute, and counts in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        before = self.last + self.calls
        self.last.copy_(x[-1])
        self.calls += 1
        return before


def cache_of(kind, length):
    generator = torch.Generator().manual_seed(length)
    return kind(
        [torch.randn(2, 2, HEADS, length, WIDTH, generator=generator).unbind() for _ in range(2)]
    )


def decoder(kind):
    ids = torch.randint(VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(0))
    return Decoder().eval(), (), {"input_ids": ids, "cache": cache_of(kind, 7)}, SIZES


def static():
    return StaticDecoder().eval(), (torch.tensor([[3]]), torch.tensor([2]))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    x = torch.ones(2, 3)
    exported = aoti.export(
        {
            "registered": decoder(Cache),
            "unknown": decoder(UnknownCache),
            "static": static(),
            "mixed": (Mixed(), (Batch(ids=x), Slots(x, 3))),
            "program": torch.export.export(Keeps(), (x,)),
        },
        path=tmp_path_factory.mktemp("caches") / "caches.pt2",
        buffers="arguments",
        golden=True,
        verify=True,
    )
    cache = cache_of(UnknownCache, 0)
    assert pytree.tree_leaves(cache) == [cache]  # as before
    return exported.path


def greedy(count):
    """The tokens that eager chooses, without a cache."""
    tokens, module = list(PROMPT), Decoder().eval()
    for _ in range(count):
        empty = cache_of(UnknownCache, 0)
        for layer in empty.layers:
            layer.keys, layer.values = layer.keys[:1], layer.values[:1]
        tokens.append(int(module(torch.tensor([tokens]), empty).logits[0, -1].argmax()))
    return tokens


def test_registered_caches_have_the_names_of_their_parts(path):
    with aoti.load(path, model_name="registered") as model:
        assert [spec.name for spec in model.inputs] == [
            "input_ids",
            *(f"cache.{kind}_cache.{layer}" for kind in ("key", "value") for layer in (0, 1)),
        ]
        assert str(model.outputs[1]) == "float32 (batch, 2, past + new, 8)"
        empty = np.zeros((1, HEADS, 0, WIDTH), np.float32)
        cache = {"key_cache": [empty] * 2, "value_cache": [empty] * 2}
        first = model(input_ids=np.array([PROMPT]), cache=cache)
        assert first.keys() == {"logits", "cache", "loss"}
        assert first["loss"] is None
        second = model(input_ids=np.array([[1]]), cache=first["cache"])
        assert second["cache"]["value_cache"][1].shape == (1, HEADS, 6, WIDTH)
        with pytest.raises(aoti.InputError, match="'key_cache', 'value_cache'"):
            model(input_ids=np.array([PROMPT]), cache={"key_cache": [empty] * 2})


@pytest.mark.parametrize("name", ["registered", "unknown"])
def test_generation_with_a_cache_is_that_of_eager(path, name):
    with aoti.load(path, model_name=name) as model:
        tokens = generate(model, PROMPT, 12)
    assert tokens == greedy(12)
    assert len(set(tokens[5:])) > 3


def test_unregistered_caches_have_the_names_of_their_attributes(path):
    with aoti.load(path, model_name="unknown") as model:
        assert [spec.name for spec in model.inputs][1:3] == [
            "cache.layers.0.keys",
            "cache.layers.0.values",
        ]


def test_a_static_cache_is_passed_and_written_into(path):
    with aoti.load(path, model_name="static") as model:
        state = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.inputs[2:]}
        assert set(state) == {
            *("first_keys", "cache.0.values", "cache.1.keys", "cache.1.values", "calls"),
        }
        assert all(spec.mutated for spec in model.inputs[2:])
        tokens = list(PROMPT)
        for place in range(12):
            logits, calls = model(np.array([[tokens[place]]]), np.array([place]), buffers=state)
            if place == len(tokens) - 1:
                tokens.append(int(logits[0, -1].argmax()))
    assert tokens == greedy(len(tokens) - len(PROMPT))
    assert calls == state["calls"] == 12
    assert state["cache.1.values"].any(-1).all(1).sum() == 12


def test_a_program_that_writes_into_what_it_keeps_is_passed_that(path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = {"calls": np.array(5, np.float32), "last": np.ones(3, np.float32)}
    with aoti.load(path, model_name="program") as model:
        assert model(x, buffers=state).tolist() == [6, 6, 6]
        assert model(x, buffers=state).tolist() == [9, 10, 11]
    assert (state["calls"], state["last"].tolist()) == (7, [3, 4, 5])


def test_the_golden_values_hold(path):
    for name in ("registered", "static", "program"):
        aoti.load(path, model_name=name, self_test=True).close()


def test_a_module_that_writes_into_its_attributes_is_refused_by_default(tmp_path):
    module, args = static()
    with pytest.raises(aoti.ExportError, match=r"(?s)buffers \(.*cache\.1\.keys.*='arguments'"):
        aoti.export(module, args, path=tmp_path / "static.pt2")


def test_mappings_and_objects_go_in_and_out(path):
    x = np.ones((2, 3), np.float32)
    with aoti.load(path, model_name="mixed") as model:
        result = model({"ids": x}, {"ids": x, "scale": 3})
        assert result["ids"].tolist() == (x * 3).tolist()
        assert result["pair"][0]["scale"] == 3
        with pytest.raises(aoti.InputError, match="exported with 3, got 4"):
            model({"ids": x}, {"ids": x, "scale": 4})


class NoNames:
    def __init__(self, x) -> None:
        self.x = x * 2


class ReturnsNoNames(nn.Module):
    def forward(self, x):
        return NoNames(x), NoNames(x + 1)


def test_parts_without_names_are_a_tuple(tmp_path):
    pytree.register_pytree_node(NoNames, lambda v: ([v.x], None), lambda v, _: NoNames(*v))
    aoti.export(ReturnsNoNames(), (torch.ones(3),), path=tmp_path / "m.pt2", verify=True)
    with aoti.load(tmp_path / "m.pt2") as model:
        (first,), (second,) = model(np.ones(3, np.float32))
    assert (first[0], second[0]) == (2, 4)
