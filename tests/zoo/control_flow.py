"""Branches, loops and sizes that depend on values."""

from __future__ import annotations

from typing import Any

import torch
from catalogue import Sample, ids, model, noise
from torch import Tensor, nn

SIZES = {"batch": 3}, {"batch": 1}, {"batch": 20}
BATCH = {0: "batch=1..64"}


def rows(module: nn.Module, width: int = 8, shift: float = 0.0) -> Sample:
    return Sample(module, lambda batch: {"x": noise(batch, width) + shift}, {"x": BATCH})


@model("torch", *SIZES)
def cond() -> Sample:
    """One of two branches."""

    class Cond(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.yes, self.no = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.yes(x).relu(), lambda x: self.no(x), (x,))

    return rows(Cond())


@model("torch", *SIZES, ci=True)
def nonzero() -> Sample:
    """As many rows as have a positive sum."""

    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            chosen = (x.sum(1) > 0).nonzero()[:, 0]
            return self.linear(x[chosen]), chosen

    return rows(Filter(), shift=0.2)


@model("torch", *SIZES)
def while_loop() -> Sample:
    """Steps until a bound."""
    from torch._higher_order_ops import while_loop

    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            _, y = while_loop(
                lambda i, y: (i < 10) & (y.abs().max() < 100),
                lambda i, y: (i + 1, y * 1.5),
                (torch.tensor(0), x),
            )
            return y

    return rows(Loop())


@model("torch", *SIZES)
def scan() -> Sample:
    """A recurrence over eight steps."""
    from torch._higher_order_ops import scan

    class Scan(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            start = torch.zeros(x.shape[0])
            return scan(lambda total, part: (total / 2 + part, total.tanh()), start, x.t())

    return rows(Scan())


@model("torch", *SIZES)
def flex_attention() -> Sample:
    """Attention whose scores are changed by a function."""
    from torch.nn.attention.flex_attention import flex_attention

    class Flex(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            def alibi(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
                return score - (i - j).abs() * 0.1

            return flex_attention(q, k, v, score_mod=alibi)

    def inputs(batch: int) -> dict[str, Any]:
        return {name: noise(batch, 2, 32, 16) for name in "qkv"}

    return Sample(Flex(), inputs, dict.fromkeys("qkv", BATCH))


@model("torch", *SIZES)
def routed_experts() -> Sample:
    """Each row goes through the two experts with the largest gates."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 4)
            self.experts = nn.Parameter(torch.randn(4, 8, 8) / 3)

        def forward(self, x: Tensor) -> Tensor:
            weights, chosen = self.gate(x).softmax(1).topk(2)
            return torch.einsum("bk,bkio,bi->bo", weights, self.experts[chosen], x)

    return rows(Experts())


@model("torch", {"batch": 2, "length": 12}, {"batch": 1, "length": 5}, {"batch": 4, "length": 40})
def beam_step() -> Sample:
    """One step of a beam search: the best continuations, sorted and gathered."""

    class Step(nn.Module):
        def forward(self, scores: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
            best, place = scores.log_softmax(-1).flatten(1).topk(3)
            beam = place // scores.shape[-1]
            kept = tokens.gather(1, beam[:, :, None].expand(-1, -1, tokens.shape[-1]))
            return best, torch.cat([kept, (place % scores.shape[-1])[:, :, None]], 2)

    def inputs(batch: int, length: int) -> dict[str, Any]:
        return {"scores": noise(batch, 3, 50), "tokens": ids(50, batch, 3, length)}

    shapes = {"scores": {0: "batch=1..8"}, "tokens": {0: "batch", 2: "length=2..64"}}
    return Sample(Step(), inputs, shapes)


@model("torch", {"boxes": 6}, {"boxes": 2}, {"boxes": 40})
def non_maximum_suppression() -> Sample:
    """Boxes without those that overlap a better one, by a loop over values."""
    from torch._higher_order_ops import while_loop

    class Nms(nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
            order = scores.argsort(descending=True, stable=True)
            b = boxes[order]
            area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
            low, high = (
                torch.maximum(b[:, None, :2], b[:, :2]),
                torch.minimum(b[:, None, 2:], b[:, 2:]),
            )
            shared = (high - low).clamp(min=0).prod(-1)
            over = shared / (area[:, None] + area - shared) > 0.5
            ranks = torch.arange(boxes.shape[0])

            def body(i: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
                beaten = (
                    over.index_select(0, i[None])[0] & (ranks > i) & keep.index_select(0, i[None])
                )
                return i + 1, keep & ~beaten

            _, keep = while_loop(
                lambda i, keep: i < boxes.shape[0],
                body,
                (torch.tensor(0), torch.ones_like(scores) > 0),
            )
            return order, keep

    def inputs(boxes: int) -> dict[str, Any]:
        corner = torch.rand(boxes, 2)
        return {"boxes": torch.cat([corner, corner + 0.5], 1), "scores": torch.rand(boxes)}

    return Sample(Nms(), inputs, {"boxes": {0: "boxes=2..100"}, "scores": {0: "boxes"}})
