"""Transformers for images, and for images with text."""

from __future__ import annotations

from typing import Any

from catalogue import Sample, ids, mask, model, noise
from cnns import SIZES, images, of_timm, of_transformers

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 64, "image_size": 32, "patch_size": 8}


@model("transformers", *SIZES)
def vit() -> Sample:
    return of_transformers("ViT", 32, **SMALL)


@model("transformers", *SIZES)
def deit() -> Sample:
    return of_transformers("DeiT", 32, **SMALL)


@model("transformers", *SIZES)
def beit() -> Sample:
    return of_transformers("Beit", 32, **SMALL, use_relative_position_bias=True)


@model("transformers", *SIZES)
def dinov2() -> Sample:
    return of_transformers("Dinov2", 32, **SMALL)


@model("transformers", *SIZES)
def swin() -> Sample:
    """Attention in windows, which shift."""
    return of_transformers(
        "Swin", 32, image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 2],
        window_size=4,
    )  # fmt: skip


@model("transformers", *SIZES)
def swin_v2() -> Sample:
    return of_transformers(
        "Swinv2", 32, image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 2],
        window_size=4,
    )  # fmt: skip


@model("transformers", *SIZES)
def pvt() -> Sample:
    return of_transformers(
        "PvtV2", 64, image_size=64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 2],
    )  # fmt: skip


@model("transformers", *SIZES)
def mobilevit() -> Sample:
    return of_transformers(
        "MobileViT", 64, image_size=64, hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 16, 24, 32], num_attention_heads=2, initializer_range=0.3,
    )  # fmt: skip


@model("transformers", *SIZES)
def poolformer() -> Sample:
    return of_transformers("PoolFormer", 64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1])


@model("timm", *SIZES)
def timm_vit() -> Sample:
    return of_timm("test_vit")


@model("timm", *SIZES)
def coatnet() -> Sample:
    return of_timm("test_coatnet", 64, img_size=64)


@model("timm", *SIZES)
def maxvit() -> Sample:
    return of_timm("test_maxvit", 64, img_size=64)


@model("vit-pytorch", *SIZES)
def simple_vit() -> Sample:
    from vit_pytorch import SimpleViT

    module = SimpleViT(
        image_size=32, patch_size=8, num_classes=10, dim=32, depth=2, heads=2, mlp_dim=64
    )
    return images(module, 32, "img")


@model("transformers", {"texts": 2, "length": 8, "batch": 3}, {"texts": 4, "length": 5, "batch": 1})
def clip() -> Sample:
    """Texts and images in one space; the result has a row for each text and each image."""
    import transformers

    text = {**SMALL, "vocab_size": 97, "max_position_embeddings": 40, "eos_token_id": 96}
    text |= {"bos_token_id": 1, "pad_token_id": 0}
    config = transformers.CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=16)

    def inputs(texts: int, length: int, batch: int) -> dict[str, Any]:
        tokens = ids(97, texts, length)
        return {
            "input_ids": tokens,
            "pixel_values": noise(batch, 3, 32, 32),
            "attention_mask": mask(texts, length),
        }

    words = {0: "texts=1..8", 1: "length=2..32"}
    shapes = {"input_ids": words, "pixel_values": {0: "batch=1..8"}, "attention_mask": words}
    return Sample(transformers.CLIPModel(config), inputs, shapes)
