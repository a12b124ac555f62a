"""Detection, segmentation and depth: many results for each image."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, model, noise
from cnns import SIZES, images
from vision_transformers import SMALL


def of_transformers(kind: str, head: str, size: int, **config: Any) -> Sample:
    import transformers

    module = getattr(transformers, kind + head)(getattr(transformers, f"{kind}Config")(**config))
    return images(module, size, "pixel_values")


@model("transformers", *SIZES)
def yolos() -> Sample:
    return of_transformers(
        "Yolos", "ForObjectDetection", 32, **{**SMALL, "image_size": [32, 32]},
        num_detection_tokens=5, num_labels=7,
    )  # fmt: skip


@model("transformers", *SIZES)
def segformer() -> Sample:
    return of_transformers(
        "Segformer", "ForSemanticSegmentation", 64, hidden_sizes=[8, 16, 16, 32],
        depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2], decoder_hidden_size=16,
        num_labels=7,
    )  # fmt: skip


@model("transformers", *SIZES)
def dpt() -> Sample:
    """Depth from the layers of a vision transformer."""
    sizes = {**SMALL, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
    return of_transformers(
        "DPT", "ForDepthEstimation", 32, **sizes, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
    )  # fmt: skip


@model("transformers", *SIZES)
def glpn() -> Sample:
    return of_transformers(
        "GLPN", "ForDepthEstimation", 64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 2], decoder_hidden_size=16,
    )  # fmt: skip


@model("transformers", *SIZES)
def super_resolution() -> Sample:
    return of_transformers(
        "Swin2SR", "ForImageSuperResolution", 16, image_size=16, patch_size=1, embed_dim=16,
        depths=[2], num_heads=[2], window_size=4, upscale=2,
    )  # fmt: skip


@model("segmentation-models-pytorch", *SIZES)
def unet_resnet18() -> Sample:
    import segmentation_models_pytorch as smp

    module = smp.Unet(
        "resnet18", encoder_weights=None, classes=3, decoder_channels=[64, 32, 16, 16, 8]
    )
    return images(module, 64)


@model("segmentation-models-pytorch", *SIZES)
def deeplab_v3() -> Sample:
    import segmentation_models_pytorch as smp

    module = smp.DeepLabV3Plus(
        "timm-mobilenetv3_small_minimal_100", encoder_weights=None, classes=3, decoder_channels=32
    )
    return images(module, 64)


@model("torch", {"batch": 2, "half": 8}, {"batch": 1, "half": 16}, {"batch": 3, "half": 5}, ci=True)
def unet() -> Sample:
    """Images of any even height; the width is fixed."""
    from torch import nn

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(16)
            self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
            self.last = nn.Conv2d(16, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            across = self.first(x).relu()
            return self.last(torch.cat([across, self.up(self.norm(self.down(across)).relu())], 1))

    return Sample(
        UNet(),
        lambda batch, half: {"x": noise(batch, 3, 2 * half, 16)},
        {"x": {0: "batch=1..8", 2: "2*half", 3: None}},
    )
