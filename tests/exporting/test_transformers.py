"""Models of transformers with their own caches; tests/exporting/test_caches.py needs no library."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor import aoti_compile_and_package

import aoti

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/examples"))
from generate import generate

transformers = pytest.importorskip(
    "transformers",
    reason="not among the development tools: pip install --no-deps transformers regex typer",
)

PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_embd=32, n_head=2, vocab_size=97, n_positions=64, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def expected(gpt2):
    tokens = gpt2.generate(
        torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    return tokens[0].tolist()


def test_generation_with_a_dynamic_cache_is_that_of_eager(gpt2, expected, tmp_path):
    ids = torch.tensor([PROMPT, PROMPT])
    aoti.export(
        gpt2,
        kwargs={"input_ids": ids, "cache": gpt2(ids[:, :3]).cache},
        path=tmp_path / "gpt2.pt2",
        dynamic_shapes={
            "input_ids": {0: "batch=1..4", 1: "new=1..32"},
            "cache": {0: "batch", 2: "past=0..32"},
        },
    )
    with aoti.load(tmp_path / "gpt2.pt2") as model:
        assert [spec.name for spec in model.inputs][:2] == ["input_ids", "cache.layers.0.keys"]
        assert generate(model, PROMPT, 12) == expected
    assert len(set(expected)) > 5


def test_generation_with_a_static_cache_is_that_of_eager(gpt2, expected, tmp_path):
    from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

    gpt2.generation_config.cache_implementation = "static"
    module = TorchExportableModuleWithStaticCache(gpt2, batch_size=1, max_cache_len=24)
    gpt2.generation_config.cache_implementation = None
    examples = {"input_ids": torch.tensor([[1]]), "cache_position": torch.tensor([2])}
    path = tmp_path / "static.pt2"
    aoti.export(module, kwargs=examples, path=path, buffers="arguments")
    with aoti.load(path) as model:
        mutated = [spec for spec in model.inputs if spec.mutated]
        state = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in mutated}
        assert "key_cache_0" in state
        tokens = list(PROMPT)
        for place in range(len(expected) - 1):
            logits = model(
                input_ids=np.array([tokens[place : place + 1]]),
                cache_position=np.array([place]),
                buffers=state,
            )
            if place == len(tokens) - 1:
                tokens.append(int(logits[0, -1].argmax()))
    assert tokens == expected


def test_an_encoder_and_a_decoder_have_a_cache_of_two(tmp_path):
    config = transformers.T5Config(
        num_layers=1, d_model=16, d_kv=8, d_ff=16, num_heads=2, vocab_size=97,
        decoder_start_token_id=0,
    )  # fmt: skip
    module = transformers.T5ForConditionalGeneration(config).eval()
    ids = torch.tensor([PROMPT])
    given = {"input_ids": ids, "decoder_input_ids": ids[:, :3]}
    aoti.export(module, kwargs=given, path=tmp_path / "t5.pt2", verify=True)
    with aoti.load(tmp_path / "t5.pt2") as model:
        cache = model(**{name: tensor.numpy() for name, tensor in given.items()})["cache"]
    assert cache["cross_attention_cache"]["layers"][0]["keys"].shape == (1, 2, 5, 8)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch
def test_a_package_of_pytorchs_own_exporter_returns_attributes(gpt2, tmp_path):
    ids = torch.tensor([PROMPT])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    gpt2.config.use_cache = False
    try:
        program = torch.export.export(gpt2, (), given)
    finally:
        gpt2.config.use_cache = True
    path = tmp_path / "stock.pt2"
    with torch.no_grad():
        aoti_compile_and_package(program, package_path=str(path))
        logits = gpt2(**given).logits.numpy()
    with aoti.load(path) as model:
        out = model(**{name: tensor.numpy() for name, tensor in given.items()})
    assert list(out) == ["logits"]
    np.testing.assert_allclose(out.logits, logits, rtol=1e-4, atol=1e-4)
