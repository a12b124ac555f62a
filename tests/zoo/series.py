"""Forecasts of time series, and operators on functions."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, model, noise
from torch import Tensor, nn

SIZES = {"batch": 2}, {"batch": 1}, {"batch": 5}
BATCH = {0: "batch=1..16"}


def forecaster(kind: str, **config: Any) -> Sample:
    import transformers

    made = getattr(transformers, f"{kind}Config")(
        context_length=32, prediction_length=8, num_input_channels=3, **config
    )
    module = getattr(transformers, f"{kind}ForPrediction")(made)
    return Sample(
        module, lambda batch: {"past_values": noise(batch, 32, 3)}, {"past_values": BATCH}
    )


@model("transformers", *SIZES)
def patch_tst() -> Sample:
    return forecaster(
        "PatchTST", patch_length=8, patch_stride=8, d_model=16, num_attention_heads=2, ffn_dim=32,
        num_hidden_layers=2,
    )  # fmt: skip


@model("transformers", *SIZES)
def patch_ts_mixer() -> Sample:
    return forecaster("PatchTSMixer", patch_length=8, patch_stride=8, d_model=16, num_layers=2)


@model("torch", *SIZES, ci=True)
def n_beats() -> Sample:
    """Blocks that each explain a part of what the others left."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 40))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            back, ahead = self.layers(x).split([32, 8], 1)
            return back, ahead

    class NBeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            forecast = torch.zeros(x.shape[0], 8)
            for block in self.blocks:
                back, ahead = block(x)
                x, forecast = x - back, forecast + ahead
            return forecast

    return Sample(NBeats(), lambda batch: {"x": noise(batch, 32)}, {"x": BATCH})


@model("torch", *SIZES)
def fourier_operator() -> Sample:
    """A Fourier neural operator: products of low frequencies with complex weights."""

    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8, 6, dtype=torch.complex64) / 8)
            self.local = nn.Conv1d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            low = torch.fft.rfft(x)[..., :6]
            mixed = torch.einsum("bim,iom->bom", low, self.weight)
            return torch.relu(torch.fft.irfft(mixed, n=x.shape[-1]) + self.local(x))

    class Operator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.layers = nn.Conv1d(1, 8, 1), nn.Sequential(Spectral(), Spectral())

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(self.lift(x)).mean(1)

    return Sample(Operator(), lambda batch: {"x": noise(batch, 1, 32)}, {"x": BATCH})


@model("torch", *SIZES)
def neural_ode() -> Sample:
    """Eight steps of Runge and Kutta."""

    class Ode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))

        def forward(self, y: Tensor) -> Tensor:
            step = 0.1
            for _ in range(8):
                a = self.slope(y)
                b = self.slope(y + step / 2 * a)
                c = self.slope(y + step / 2 * b)
                y = y + step / 6 * (a + 2 * b + 2 * c + self.slope(y + step * c))
            return y

    return Sample(Ode(), lambda batch: {"y": noise(batch, 4)}, {"y": BATCH})
