"""Recurrent networks."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, ids, model, noise
from torch import Tensor, nn

SIZES = {"batch": 2, "length": 12}, {"batch": 1, "length": 3}, {"batch": 5, "length": 40}
FREE = {0: "batch=1..8", 1: "length=2..64"}


class Tagger(nn.Module):
    """A class for each token, from layers of recurrent cells in both directions."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.layers = kind(16, 24, batch_first=True, bidirectional=True, **options)
        self.head = nn.Linear(48, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(tokens))[0])


def tagger(kind: type[nn.RNNBase], **options: Any) -> Sample:
    return Sample(
        Tagger(kind, **options),
        lambda batch, length: {"tokens": ids(50, batch, length)},
        {"tokens": FREE},
    )


@model("torch", *SIZES, ci=True)
def lstm_tagger() -> Sample:
    return tagger(nn.LSTM, num_layers=2)


@model("torch", *SIZES)
def gru_tagger() -> Sample:
    return tagger(nn.GRU)


@model("torch", *SIZES)
def rnn_tagger() -> Sample:
    return tagger(nn.RNN, nonlinearity="relu")


@model("torch", *SIZES)
def packed_lstm() -> Sample:
    """Sequences with their lengths."""
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 16, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            out, (last, _) = self.lstm(packed)
            padded, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
            return padded, last

    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {"x": noise(batch, length, 8), "lengths": torch.randint(1, length + 1, (batch,))}

    return Sample(Packed(), inputs, {"x": FREE, "lengths": {0: "batch"}})


@model("torch", *SIZES, ci=True)
def attention_gru() -> Sample:
    """One step of a decoder: a cell, and attention to what an encoder gave."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(32, 16)

        def forward(self, x: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
            weights = torch.softmax((memory @ hidden[:, :, None])[..., 0], 1)
            context = (weights[:, :, None] * memory).sum(1)
            return self.cell(torch.cat([x, context], 1), hidden), weights

    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {
            "x": noise(batch, 16), "hidden": noise(batch, 16), "memory": noise(batch, length, 16)
        }  # fmt: skip

    return Sample(Step(), inputs, {"x": {0: "batch"}, "hidden": {0: "batch"}, "memory": FREE})


@model("ncps", {"batch": 2}, {"batch": 1}, {"batch": 5})
def closed_form_continuous() -> Sample:
    """A closed-form continuous-time network, unrolled over eight steps."""
    from ncps.torch import CfC

    free = {"input": {0: "batch=1..8"}}
    return Sample(CfC(6, 16), lambda batch: {"input": noise(batch, 8, 6)}, free)


@model("transformers", {"batch": 2}, {"batch": 1})
def rwkv() -> Sample:
    import transformers

    config = transformers.RwkvConfig(
        vocab_size=50, context_length=16, hidden_size=32, num_hidden_layers=2, use_cache=False
    )
    return Sample(
        transformers.RwkvModel(config),
        lambda batch: {"input_ids": ids(50, batch, 8)},
        {"input_ids": {0: "batch=1..8"}},
    )
