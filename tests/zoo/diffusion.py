"""Denoisers, and the decoders of their latent images."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, model, noise
from torch import nn

SIZES = {"batch": 2}, {"batch": 1}, {"batch": 4}
BLOCKS = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
BATCH = {0: "batch=1..8"}


class Denoiser(nn.Module):
    """A denoiser of diffusers that returns its tensor, not a dataclass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, arguments: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(**arguments, return_dict=False)[0]


def denoiser(module: nn.Module, **shapes: tuple[int, ...]) -> Sample:
    """Arguments of these shapes, after the batch, and the time."""

    def inputs(batch: int) -> dict[str, Any]:
        made: dict[str, Any] = {name: noise(batch, *shape) for name, shape in shapes.items()}
        return {"arguments": made | {"timestep": torch.randint(0, 1000, (batch,))}}

    dynamic = dict.fromkeys((*shapes, "timestep"), BATCH)
    return Sample(Denoiser(module), inputs, {"arguments": dynamic})


@model("diffusers", *SIZES)
def unet_2d() -> Sample:
    from diffusers import UNet2DModel

    module = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, **BLOCKS, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return denoiser(module, sample=(3, 16, 16))


@model("diffusers", *SIZES)
def unet_2d_condition() -> Sample:
    """As in Stable Diffusion: attention to the tokens of a text."""
    from diffusers import UNet2DConditionModel

    module = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, **BLOCKS, cross_attention_dim=32,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return denoiser(module, sample=(4, 16, 16), encoder_hidden_states=(7, 32))


@model("diffusers", *SIZES)
def sd3() -> Sample:
    from diffusers import SD3Transformer2DModel

    module = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32,
        caption_projection_dim=16, pooled_projection_dim=24, pos_embed_max_size=16,
    )  # fmt: skip
    return denoiser(
        module, hidden_states=(4, 16, 16), encoder_hidden_states=(7, 32), pooled_projections=(24,)
    )


@model("diffusers", *SIZES)
def pixart() -> Sample:
    from diffusers import PixArtTransformer2DModel

    module = PixArtTransformer2DModel(
        sample_size=16, num_layers=2, num_attention_heads=2, attention_head_dim=8, in_channels=4,
        out_channels=8, cross_attention_dim=16, caption_channels=24,
        use_additional_conditions=False,
    )  # fmt: skip
    return denoiser(module, hidden_states=(4, 16, 16), encoder_hidden_states=(7, 24))


@model("diffusers", *SIZES)
def unet_1d() -> Sample:
    from diffusers import UNet1DModel

    module = UNet1DModel(
        sample_size=64, in_channels=2, out_channels=2, block_out_channels=(16, 32),
        extra_in_channels=32, norm_num_groups=8,
        down_block_types=("DownBlock1DNoSkip", "DownBlock1D"),
        up_block_types=("UpBlock1D", "UpBlock1DNoSkip"),
    )  # fmt: skip
    return denoiser(module, sample=(2, 64))


class Decoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.model.decode(latents, return_dict=False)[0]


@model("diffusers", *SIZES)
def autoencoder_kl() -> Sample:
    from diffusers import AutoencoderKL

    module = AutoencoderKL(
        **BLOCKS, latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    return Sample(
        Decoder(module), lambda batch: {"latents": noise(batch, 4, 8, 8)}, {"latents": BATCH}
    )


@model("diffusers", *SIZES)
def autoencoder_tiny() -> Sample:
    from diffusers import AutoencoderTiny

    module = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip
    return Sample(
        Decoder(module), lambda batch: {"latents": noise(batch, 4, 8, 8)}, {"latents": BATCH}
    )


@model("torch", *SIZES, ci=True)
def dit() -> Sample:
    """Blocks of a diffusion transformer, whose norms are shifted and scaled by the time."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in "ab")
            self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU("tanh"), nn.Linear(64, width))
            self.modulation = nn.Linear(width, 6 * width)

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            parts = self.modulation(nn.functional.silu(time))[:, None].chunk(6, -1)
            y = self.norms[0](x) * (1 + parts[0]) + parts[1]
            x = x + parts[2] * self.attention(y, y, y, need_weights=False)[0]
            y = self.norms[1](x) * (1 + parts[3]) + parts[4]
            return x + parts[5] * self.mlp(y)

    class DiT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(4, 32, 2, stride=2)
            self.blocks = nn.ModuleList(Block(32) for _ in range(2))
            self.out = nn.Linear(32, 16)

        def forward(self, latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            x = self.patches(latents).flatten(2).transpose(1, 2)
            frequencies = torch.exp(-torch.arange(16) / 4.0)
            angles = time[:, None] * frequencies
            embedded = torch.cat([angles.sin(), angles.cos()], 1)
            for block in self.blocks:
                x = block(x, embedded)
            return nn.functional.pixel_shuffle(self.out(x).mT.unflatten(2, (8, 8)), 2)

    return Sample(
        DiT(),
        lambda batch: {"latents": noise(batch, 4, 16, 16), "time": torch.rand(batch) * 1000},
        {"latents": BATCH, "time": BATCH},
    )
