"""Language models with a cache of keys and values: new tokens and the cache in, both out."""

from __future__ import annotations

from typing import Any

from catalogue import Sample, ids, model

SIZES = (
    {"batch": 2, "new": 4, "past": 6},
    {"batch": 1, "new": 1, "past": 20},
    {"batch": 3, "new": 9, "past": 1},
)
VOCABULARY = 97


def decoder(kind: str, head: str = "ForCausalLM", **config: Any) -> Sample:
    """A small causal language model of transformers."""
    import transformers

    common = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
    common |= {"num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 80}
    common |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    made = getattr(transformers, f"{kind}Config")(**common | config)
    module = getattr(transformers, kind + head)(made).eval()

    def inputs(batch: int, new: int, past: int) -> dict[str, Any]:
        cache = module(ids(VOCABULARY, batch, past), use_cache=True).cache
        return {"input_ids": ids(VOCABULARY, batch, new), "cache": cache}

    shapes = {
        "input_ids": {0: "batch=1..8", 1: "new=1..32"},
        "cache": {0: "batch", 2: "past=0..32"},
    }
    return Sample(module, inputs, shapes)


@model("transformers", *SIZES)
def gpt2() -> Sample:
    return decoder("GPT2", "LMHeadModel", n_positions=80)


@model("transformers", *SIZES)
def llama() -> Sample:
    return decoder("Llama", num_key_value_heads=1)


@model("transformers", *SIZES)
def mistral() -> Sample:
    return decoder("Mistral", num_key_value_heads=1, sliding_window=None)


@model("transformers", *SIZES)
def qwen2() -> Sample:
    return decoder("Qwen2", num_key_value_heads=1)


@model("transformers", *SIZES)
def qwen3() -> Sample:
    return decoder("Qwen3", num_key_value_heads=1, head_dim=16)


@model("transformers", *SIZES)
def gemma() -> Sample:
    return decoder("Gemma", num_key_value_heads=1, head_dim=16)


@model("transformers", *SIZES)
def phi() -> Sample:
    return decoder("Phi")


@model("transformers", *SIZES)
def gpt_neox() -> Sample:
    return decoder("GPTNeoX")


@model("transformers", *SIZES)
def opt() -> Sample:
    return decoder("OPT", ffn_dim=64, word_embed_proj_dim=32)


@model("transformers", *SIZES)
def bloom() -> Sample:
    """Linear biases in place of positions."""
    return decoder("Bloom", n_layer=2, n_head=2)


@model("transformers", *SIZES)
def falcon() -> Sample:
    return decoder("Falcon", new_decoder_architecture=False, multi_query=True, alibi=False)


@model("transformers", *SIZES)
def olmo2() -> Sample:
    return decoder("Olmo2")


@model("transformers", *SIZES)
def mixtral() -> Sample:
    """A mixture of experts."""
    return decoder(
        "Mixtral", num_key_value_heads=1, num_local_experts=4, sliding_window=None,
    )  # fmt: skip


@model("transformers", {"batch": 2}, {"batch": 1}, {"batch": 5})
def mamba() -> Sample:
    """A selective state space; without a cache."""
    import transformers

    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, use_cache=False
    )
    module = transformers.MambaForCausalLM(config)
    return Sample(
        module,
        lambda batch: {"input_ids": ids(VOCABULARY, batch, 12)},
        {"input_ids": {0: "batch=1..8"}},
    )
