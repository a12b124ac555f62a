"""Tables and recommendations: rows of numbers and of ids."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, ids, model, noise
from torch import Tensor, nn

SIZES = {"batch": 3}, {"batch": 1}, {"batch": 64}
BATCH = {0: "batch=1..1024"}


@model("pytorch-tabnet", {"batch": 3})
def tabnet() -> Sample:
    """Steps of attention to features, with a sparse maximum; it divides the batch by numpy."""
    from pytorch_tabnet.tab_network import TabNetNoEmbeddings

    module = TabNetNoEmbeddings(
        10, 2, n_d=8, n_a=8, n_steps=3, group_attention_matrix=torch.eye(10)
    )
    return Sample(module, lambda batch: {"x": noise(batch, 10)}, {"x": None})


def mixed(batch: int) -> dict[str, Any]:
    return {"x_cont": noise(batch, 6), "x_cat": torch.stack([ids(4, batch), ids(9, batch)], 1)}


@model("rtdl-revisiting-models", *SIZES)
def ft_transformer() -> Sample:
    """A token for each feature."""
    from rtdl_revisiting_models import FTTransformer

    module = FTTransformer(
        n_cont_features=6, cat_cardinalities=[4, 9], d_out=2, n_blocks=2, d_block=16,
        attention_n_heads=2, attention_dropout=0.0, ffn_d_hidden=32,
        ffn_d_hidden_multiplier=None, ffn_dropout=0.0, residual_dropout=0.0,
    )  # fmt: skip
    return Sample(module, mixed, {"x_cont": BATCH, "x_cat": BATCH})


@model("rtdl-revisiting-models", *SIZES)
def tabular_resnet() -> Sample:
    from rtdl_revisiting_models import ResNet

    module = ResNet(
        d_in=10, d_out=2, n_blocks=2, d_block=16, d_hidden=32, d_hidden_multiplier=None,
        dropout1=0.0, dropout2=0.0,
    )  # fmt: skip
    return Sample(module, lambda batch: {"x": noise(batch, 10)}, {"x": BATCH})


class Recommender(nn.Module):
    """Numbers and ids of a user and an item."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, 8) for count in (100, 50, 20))
        self.bottom = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())

    def vectors(self, numbers: Tensor, items: Tensor) -> Tensor:
        looked_up = [table(items[:, i]) for i, table in enumerate(self.tables)]
        return torch.stack([self.bottom(numbers), *looked_up], 1)


def recommendation(module: nn.Module) -> Sample:
    def inputs(batch: int) -> dict[str, Any]:
        return {"numbers": noise(batch, 6), "items": ids(20, batch, 3)}

    return Sample(module, inputs, {"numbers": BATCH, "items": BATCH})


@model("torch", *SIZES, ci=True)
def dlrm() -> Sample:
    """Products of all pairs of vectors."""

    class Dlrm(Recommender):
        def __init__(self) -> None:
            super().__init__()
            self.top = nn.Sequential(nn.Linear(14, 16), nn.ReLU(), nn.Linear(16, 1))

        def forward(self, numbers: Tensor, items: Tensor) -> Tensor:
            vectors = self.vectors(numbers, items)
            rows, columns = torch.tril_indices(4, 4, offset=-1)
            pairs = (vectors @ vectors.mT)[:, rows, columns]
            return torch.sigmoid(self.top(torch.cat([vectors[:, 0], pairs], 1)))

    return recommendation(Dlrm())


@model("torch", *SIZES)
def deep_fm() -> Sample:
    """A factorisation machine beside a deep network."""

    class DeepFM(Recommender):
        def __init__(self) -> None:
            super().__init__()
            self.deep = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))

        def forward(self, numbers: Tensor, items: Tensor) -> Tensor:
            vectors = self.vectors(numbers, items)
            pairs = (vectors.sum(1).square() - vectors.square().sum(1)).sum(1, keepdim=True) / 2
            return torch.sigmoid(pairs + self.deep(vectors.flatten(1)))

    return recommendation(DeepFM())


@model("torch", {"batch": 2, "bags": 9}, {"batch": 1, "bags": 3}, {"batch": 5, "bags": 40})
def embedding_bag() -> Sample:
    """Means of as many embeddings as each row has."""

    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(100, 8, mode="mean")
            self.head = nn.Linear(8, 3)

        def forward(self, tokens: Tensor, offsets: Tensor) -> Tensor:
            return self.head(self.bag(tokens, offsets))

    def inputs(batch: int, bags: int) -> dict[str, Any]:
        return {"tokens": ids(100, bags), "offsets": torch.arange(batch) * (bags // batch)}

    shapes = {"tokens": {0: "bags=2..512"}, "offsets": {0: "batch=1..64"}}
    return Sample(Bags(), inputs, shapes)


@model(
    "torch",
    {"batch": 2, "length": 10},
    {"batch": 1, "length": 3},
    {"batch": 5, "length": 20},
    ci=True,
)
def sasrec() -> Sample:
    """The next item of a session, by causal attention; scores for some candidates."""

    class SasRec(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.places = nn.Embedding(200, 16), nn.Embedding(50, 16)
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, session: Tensor, candidates: Tensor) -> Tensor:
            length = session.shape[1]
            x = self.items(session) + self.places(torch.arange(length))
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
            last = self.layers(x, mask=future)[:, -1]
            return (self.items(candidates) @ last[:, :, None])[..., 0].topk(3).indices

    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {"session": ids(200, batch, length), "candidates": ids(200, batch, 12)}

    shapes = {"session": {0: "batch=1..8", 1: "length=2..50"}, "candidates": {0: "batch"}}
    return Sample(SasRec(), inputs, shapes)
