"""Text encoders."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, ids, mask, model
from torch import nn

SIZES = {"batch": 2, "length": 16}, {"batch": 1, "length": 5}, {"batch": 5, "length": 40}
VOCABULARY = 97


def encoder(kind: str, head: str = "Model", **config: Any) -> Sample:
    """A small encoder of transformers with ids and a mask, both of dynamic sizes."""
    import transformers

    common = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
    common |= {"num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 80}
    made = getattr(transformers, f"{kind}Config")(**common | config)
    module = getattr(transformers, f"{kind}{head}")(made)

    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {"input_ids": ids(VOCABULARY, batch, length), "attention_mask": mask(batch, length)}

    free = {0: "batch=1..16", 1: "length=2..64"}
    return Sample(module, inputs, {"input_ids": free, "attention_mask": free})


@model("transformers", *SIZES)
def bert() -> Sample:
    return encoder("Bert")


@model("transformers", *SIZES)
def roberta_classifier() -> Sample:
    return encoder("Roberta", "ForSequenceClassification")


@model("transformers", *SIZES)
def distilbert_masked_lm() -> Sample:
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    return encoder("DistilBert", "ForMaskedLM", **sizes)


@model("transformers", *SIZES)
def albert() -> Sample:
    return encoder("Albert", embedding_size=16)


@model("transformers", *SIZES)
def electra_tagger() -> Sample:
    return encoder("Electra", "ForTokenClassification", embedding_size=16)


@model("transformers", *SIZES)
def deberta() -> Sample:
    return encoder(
        "DebertaV2", relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"]
    )


@model("transformers", *SIZES)
def mpnet() -> Sample:
    return encoder("MPNet")


@model("transformers", *SIZES)
def modern_bert() -> Sample:
    return encoder("ModernBert", local_attention=8, pad_token_id=0)


@model("transformers", *SIZES)
def roformer() -> Sample:
    return encoder("RoFormer", embedding_size=32)


@model("transformers", *SIZES)
def fnet() -> Sample:
    """Fourier transforms in place of attention."""
    sample = encoder("FNet")
    return Sample(
        sample.module,
        lambda **sizes: {"input_ids": sample.inputs(**sizes)["input_ids"]},
        {"input_ids": sample.shapes["input_ids"]},
    )


@model("x-transformers", *SIZES)
def x_transformers_encoder() -> Sample:
    from x_transformers import Encoder, TransformerWrapper

    layers = Encoder(dim=32, depth=2, heads=2, rotary_pos_emb=True, ff_glu=True)
    module = TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=64, attn_layers=layers)
    free = {0: "batch=1..16", 1: "length=2..64"}
    return Sample(module, lambda batch, length: {"x": ids(VOCABULARY, batch, length)}, {"x": free})


@model("torch", *SIZES, ci=True)
def torch_encoder() -> Sample:
    """PyTorch's own layers, with a padding mask."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(VOCABULARY, 32)
            layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, tokens: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            return self.layers(self.embed(tokens), src_key_padding_mask=padding)

    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {"tokens": ids(VOCABULARY, batch, length), "padding": mask(batch, length) == 0}

    free = {0: "batch=1..16", 1: "length=2..64"}
    return Sample(Encoder(), inputs, {"tokens": free, "padding": free})
