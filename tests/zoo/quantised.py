"""Models of fewer bits: integer weights of torchao, and 16-bit floats."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, model, noise
from text import SIZES, encoder
from torch import Tensor, nn


def quantised(sample: Sample, config: str) -> Sample:
    """The linear layers of a model with the weights of a configuration of torchao."""
    import torchao.quantization as quantization

    quantization.quantize_(sample.module.eval(), getattr(quantization, config)())
    return sample


def mlp() -> Sample:
    module = nn.Sequential(
        nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)
    )
    shapes = {"input": {0: "batch=1..64"}}
    return Sample(module, lambda batch: {"input": noise(batch, 32)}, shapes)


ROWS = {"batch": 4}, {"batch": 1}, {"batch": 33}


@model("torchao", *ROWS, tolerance=1e-2)
def int8_weights_mlp() -> Sample:
    return quantised(mlp(), "Int8WeightOnlyConfig")


@model("torchao", *ROWS, tolerance=2e-2)
def int8_dynamic_mlp() -> Sample:
    return quantised(mlp(), "Int8DynamicActivationInt8WeightConfig")


@model("torchao", *SIZES, tolerance=1e-2)
def int8_weights_bert() -> Sample:
    return quantised(encoder("Bert"), "Int8WeightOnlyConfig")


@model("torchao", *SIZES, tolerance=5e-2)
def int8_dynamic_bert() -> Sample:
    return quantised(encoder("Bert"), "Int8DynamicActivationInt8WeightConfig")


@model("transformers", *SIZES, tolerance=5e-2)
def bfloat16_bert() -> Sample:
    sample = encoder("Bert")
    return sample._replace(module=sample.module.bfloat16())


class Half(nn.Module):
    """Floats of 32 bits in and out, of 16 bits inside."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module.to(dtype), dtype

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.module(input.to(self.dtype)).float()


@model("torch", *ROWS, tolerance=3e-2, ci=True)
def bfloat16_mlp() -> Sample:
    sample = mlp()
    return sample._replace(module=Half(sample.module, torch.bfloat16))


@model("torch", *ROWS, tolerance=5e-3)
def float16_mlp() -> Sample:
    sample = mlp()
    return sample._replace(module=Half(sample.module, torch.float16))


@model("torch", {"batch": 2}, {"batch": 1}, tolerance=3e-2)
def bfloat16_cnn() -> Sample:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    )  # fmt: skip

    def inputs(batch: int) -> dict[str, Any]:
        return {"input": noise(batch, 3, 32, 32)}

    return Sample(Half(module, torch.bfloat16), inputs, {"input": {0: "batch=1..8"}})
