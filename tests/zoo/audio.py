"""Speech and sound: waveforms and spectrograms."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, model, noise
from torch import nn

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 64}
CONVOLUTIONS = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2)}
CONVOLUTIONS |= {"num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16}
CONVOLUTIONS |= {"num_conv_pos_embedding_groups": 4, "vocab_size": 29}
WAVES = {"batch": 2, "frames": 80}, {"batch": 1, "frames": 45}, {"batch": 3, "frames": 200}


def recogniser(kind: str, head: str = "ForCTC", **config: Any) -> Sample:
    """A model of transformers for waveforms of any length that is a multiple of the stride."""
    import transformers

    made = getattr(transformers, f"{kind}Config")(**SMALL | CONVOLUTIONS | config)
    module = getattr(transformers, kind + head)(made)
    return Sample(
        module,
        lambda batch, frames: {"input_values": noise(batch, 20 * frames)},
        {"input_values": {0: "batch=1..8", 1: "20*frames"}},
    )


@model("transformers", *WAVES)
def wav2vec2() -> Sample:
    return recogniser("Wav2Vec2")


@model("transformers", *WAVES)
def hubert() -> Sample:
    return recogniser("Hubert")


@model("transformers", *WAVES)
def wavlm() -> Sample:
    return recogniser("WavLM", num_buckets=32, max_bucket_distance=80)


@model("transformers", *WAVES)
def data2vec_audio() -> Sample:
    return recogniser("Data2VecAudio", "ForCTC", num_conv_pos_embeddings=3)


@model("transformers", {"batch": 2}, {"batch": 1}, {"batch": 5})
def spectrogram_transformer() -> Sample:
    import transformers

    config = transformers.ASTConfig(**SMALL, max_length=64, num_mel_bins=16, patch_size=8)
    return Sample(
        transformers.ASTForAudioClassification(config),
        lambda batch: {"input_values": noise(batch, 64, 16)},
        {"input_values": {0: "batch=1..8"}},
    )


@model("transformers", {"length": 20}, {"length": 7}, {"length": 50})
def hifigan() -> Sample:
    """A vocoder: a spectrogram of any length becomes a waveform."""
    import transformers

    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=16, upsample_initial_channel=32, upsample_rates=[4, 2],
        upsample_kernel_sizes=[8, 4], resblock_kernel_sizes=[3, 5],
        resblock_dilation_sizes=[[1, 3], [1, 3]],
    )  # fmt: skip
    return Sample(
        transformers.SpeechT5HifiGan(config),
        lambda length: {"spectrogram": noise(2, length, 16)},
        {"spectrogram": {1: "length=4..200"}},
    )


@model("transformers", {"frames": 20}, {"frames": 7}, {"frames": 50})
def descript_codec() -> Sample:
    """The decoder of a codec: latent frames become a waveform."""
    import transformers

    config = transformers.DacConfig(
        encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=32,
        upsampling_ratios=[4, 2], n_codebooks=2, codebook_size=64, codebook_dim=4,
        sampling_rate=8000,
    )  # fmt: skip
    module = transformers.DacModel(config).decoder
    free = {"hidden_state": {2: "frames=4..200"}}
    return Sample(module, lambda frames: {"hidden_state": noise(1, 32, frames)}, free)


@model(
    "conformer", {"batch": 2, "length": 20}, {"batch": 1, "length": 7}, {"batch": 3, "length": 50}
)
def conformer() -> Sample:
    from conformer import ConformerBlock

    module = ConformerBlock(dim=32, dim_head=16, heads=2, conv_kernel_size=7)
    free = {"x": {0: "batch=1..8", 1: "length=2..64"}}
    return Sample(module, lambda batch, length: {"x": noise(batch, length, 32)}, free)


@model(
    "pytorch-tcn", {"batch": 2, "length": 20}, {"batch": 1, "length": 7}, {"batch": 3, "length": 50}
)
def tcn() -> Sample:
    """Dilated causal convolutions."""
    from pytorch_tcn import TCN

    module = TCN(num_inputs=4, num_channels=[8, 8, 8], kernel_size=3)
    free = {"x": {0: "batch=1..8", 2: "length=2..64"}}
    return Sample(module, lambda batch, length: {"x": noise(batch, 4, length)}, free)


@model(
    "torch", {"batch": 2, "length": 1600}, {"batch": 1, "length": 900}, {"batch": 3, "length": 4001}
)
def mel_front_end() -> Sample:
    """Short-time Fourier transform, a filter bank and a logarithm."""

    class Mel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("window", torch.hann_window(256))
            self.register_buffer("bank", torch.rand(20, 129))

        def forward(self, wave: torch.Tensor) -> torch.Tensor:
            parts = torch.stft(wave, 256, 128, window=self.window, return_complex=True)
            power = parts.abs() ** 2
            return torch.einsum("mf,bft->bmt", self.bank, power).clamp(min=1e-5).log()

    free = {"wave": {0: "batch=1..8", 1: "length=400..16000"}}
    return Sample(Mel(), lambda batch, length: {"wave": noise(batch, length)}, free)
