"""Convolutional networks for images."""

from __future__ import annotations

from typing import Any

from catalogue import Sample, model, noise
from torch import nn

SIZES = {"batch": 2}, {"batch": 1}, {"batch": 5}


def images(module: nn.Module, size: int, name: str = "x") -> Sample:
    """A module for square images, with a dynamic batch."""
    return Sample(
        module, lambda batch: {name: noise(batch, 3, size, size)}, {name: {0: "batch=1..8"}}
    )


def of_timm(name: str, size: int = 96, **options: Any) -> Sample:
    import timm

    return images(timm.create_model(name, num_classes=10, **options), size)


def of_transformers(kind: str, size: int = 64, **config: Any) -> Sample:
    import transformers

    made = getattr(transformers, f"{kind}Config")(num_labels=10, **config)
    module = getattr(transformers, f"{kind}ForImageClassification")(made)
    return images(module, size, "pixel_values")


def of_torchvision(name: str, size: int = 64, **options: Any) -> Sample:
    import torchvision

    return images(getattr(torchvision.models, name)(num_classes=10, **options), size)


@model("transformers", *SIZES)
def resnet() -> Sample:
    return of_transformers(
        "ResNet", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="bottleneck"
    )


@model("torchvision", *SIZES)
def resnet18() -> Sample:
    return of_torchvision("resnet18")


@model("transformers", *SIZES)
def convnext() -> Sample:
    return of_transformers("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)


@model("transformers", *SIZES)
def convnext_v2() -> Sample:
    return of_transformers("ConvNextV2", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)


@model("transformers", *SIZES)
def regnet() -> Sample:
    return of_transformers(
        "RegNet", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], groups_width=8
    )


@model("transformers", *SIZES)
def mobilenet_v1() -> Sample:
    return of_transformers("MobileNetV1", depth_multiplier=0.25, min_depth=8)


@model("transformers", *SIZES)
def big_transfer() -> Sample:
    """Weights that are standardised at each call, and group normalisation."""
    return of_transformers(
        "Bit", embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], num_groups=4
    )


@model("timm", *SIZES)
def efficientnet() -> Sample:
    return of_timm("test_efficientnet")


@model("timm", *SIZES)
def nfnet() -> Sample:
    return of_timm("test_nfnet")


@model("timm", *SIZES)
def byobnet() -> Sample:
    return of_timm("test_byobnet")


@model("torchvision", *SIZES)
def squeezenet() -> Sample:
    return of_torchvision("squeezenet1_1")


@model("torchvision", *SIZES)
def shufflenet() -> Sample:
    return of_torchvision("shufflenet_v2_x0_5")


@model("torchvision", *SIZES)
def mobilenet_v3() -> Sample:
    return of_torchvision("mobilenet_v3_small")
