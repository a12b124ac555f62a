"""Encoders and decoders together, and each alone as generation uses them."""

from __future__ import annotations

from typing import Any

from catalogue import Sample, ids, mask, model, noise

SIZES = (
    {"batch": 2, "length": 10, "target": 6},
    {"batch": 1, "length": 5, "target": 2},
    {"batch": 3, "length": 30, "target": 12},
)
VOCABULARY = 97
TEXT = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2}
TEXT |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 80}
TEXT |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
TEXT |= {"forced_eos_token_id": None, "use_cache": False}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2}
T5 |= {"num_heads": 2, "decoder_start_token_id": 0, "use_cache": False}


def translator(kind: str, head: str = "ForConditionalGeneration", **config: Any) -> Sample:
    """The logits of a target for a source text, all of dynamic sizes."""
    import transformers

    module = getattr(transformers, kind + head)(getattr(transformers, f"{kind}Config")(**config))

    def inputs(batch: int, length: int, target: int) -> dict[str, Any]:
        return {
            "input_ids": ids(VOCABULARY, batch, length),
            "attention_mask": mask(batch, length),
            "decoder_input_ids": ids(VOCABULARY, batch, target),
        }

    free = {0: "batch=1..8", 1: "length=2..64"}
    target = {0: "batch", 1: "target=2..64"}
    shapes = {"input_ids": free, "attention_mask": free, "decoder_input_ids": target}
    return Sample(module, inputs, shapes)


@model("transformers", *SIZES)
def t5() -> Sample:
    return translator("T5", **T5)


@model("transformers", *SIZES)
def bart() -> Sample:
    return translator("Bart", **TEXT)


@model("transformers", *SIZES)
def marian() -> Sample:
    return translator("Marian", "MTModel", **TEXT)


@model("transformers", *SIZES)
def pegasus() -> Sample:
    return translator("Pegasus", **TEXT)


@model("transformers", *SIZES)
def m2m100() -> Sample:
    return translator("M2M100", **TEXT)


@model("transformers", {"batch": 2, "length": 4}, {"batch": 1, "length": 7})
def whisper() -> Sample:
    """Speech to text: a spectrogram of fixed length and the tokens so far."""
    import transformers

    config = transformers.WhisperConfig(
        **TEXT, num_mel_bins=16, max_source_positions=50, max_target_positions=40
    )

    def inputs(batch: int, length: int) -> dict[str, Any]:
        tokens = ids(VOCABULARY, batch, length)
        return {"input_features": noise(batch, 16, 100), "decoder_input_ids": tokens}

    shapes = {
        "input_features": {0: "batch=1..8"},
        "decoder_input_ids": {0: "batch", 1: "length=2..32"},
    }
    return Sample(transformers.WhisperForConditionalGeneration(config), inputs, shapes)
