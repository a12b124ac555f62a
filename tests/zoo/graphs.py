"""Graph networks: features of nodes and the edges between them, any number of both."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, model, noise
from torch import Tensor, nn

SIZES = {"nodes": 9, "edges": 30}, {"nodes": 4, "edges": 7}, {"nodes": 40, "edges": 200}
SHAPES = {"x": {0: "nodes=2..500"}, "edge_index": {1: "edges=2..5000"}}


def inputs(nodes: int, edges: int) -> dict[str, Any]:
    return {"x": noise(nodes, 8), "edge_index": torch.randint(0, nodes, (2, edges))}


def of_geometric(name: str, **options: Any) -> Sample:
    import torch_geometric.nn

    module = getattr(torch_geometric.nn, name)(8, 16, 2, 4, **options)
    return Sample(module, inputs, SHAPES)


@model("torch-geometric", *SIZES)
def gcn() -> Sample:
    return of_geometric("GCN")


@model("torch-geometric", *SIZES)
def gat() -> Sample:
    return of_geometric("GAT", heads=2)


@model("torch-geometric", *SIZES)
def gat_v2() -> Sample:
    return of_geometric("GAT", heads=2, v2=True)


@model("torch-geometric", *SIZES)
def graph_sage() -> Sample:
    return of_geometric("GraphSAGE")


@model("torch-geometric", *SIZES)
def graph_isomorphism() -> Sample:
    return of_geometric("GIN")


@model("torch-geometric", *SIZES)
def edge_cnn() -> Sample:
    return of_geometric("EdgeCNN")


@model("torch-geometric", *SIZES)
def graph_transformer() -> Sample:
    import torch_geometric.nn

    return Sample(torch_geometric.nn.TransformerConv(8, 16, heads=2), inputs, SHAPES)


@model("egnn-pytorch", {"nodes": 9}, {"nodes": 4}, {"nodes": 30})
def equivariant() -> Sample:
    """Features and positions of atoms; all are neighbours of all."""
    from egnn_pytorch import EGNN

    return Sample(
        EGNN(dim=16, m_dim=8),
        lambda nodes: {"feats": noise(2, nodes, 16), "coors": noise(2, nodes, 3)},
        {"feats": {1: "nodes=2..64"}, "coors": {1: "nodes"}},
    )


@model("torch", *SIZES, ci=True)
def message_passing() -> Sample:
    """Means of messages that depend on both ends of an edge."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.message = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            source, target = edge_index
            messages = self.message(torch.cat([x[source], x[target]], 1))
            total = torch.zeros_like(x).index_add(0, target, messages)
            count = torch.zeros(x.shape[0]).index_add(0, target, torch.ones(target.shape[0]))
            return x + total / count.clamp(min=1)[:, None]

    return Sample(Layer(), inputs, SHAPES)
