"""The network of YOLOv8n.

For each place it gives the distances to the sides of a box, in steps of its grid, and the scores of
all classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Conv(nn.Sequential):
    """A convolution, a batch norm and SiLU."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1) -> None:
        convolution = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outer), nn.SiLU())


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, and perhaps what skips them."""

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        self.path = nn.Sequential(Conv(channels, channels, 3), Conv(channels, channels, 3))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x) if self.skip else self.path(x)


class C2f(nn.Module):
    """Bottlenecks one after another, of which all results are used."""

    def __init__(self, inner: int, outer: int, count: int, *, skip: bool = False) -> None:
        super().__init__()
        half = outer // 2
        self.first, self.last = Conv(inner, outer), Conv((2 + count) * half, outer)
        self.steps = nn.ModuleList(Bottleneck(half, skip=skip) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """Maxima of ever larger places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.first, self.last = Conv(channels, half), Conv(4 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class Head(nn.Module):
    """Distances to the four sides of a box, as distributions, and a score for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.boxes = nn.Sequential(Conv(channels, 64, 3), Conv(64, 64, 3), nn.Conv2d(64, 64, 1))
        width = max(64, classes)
        self.scores = nn.Sequential(
            Conv(channels, width, 3), Conv(width, width, 3), nn.Conv2d(width, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        sides = self.boxes(x).flatten(2).unflatten(1, (4, 16)).softmax(2)
        distances = (sides * torch.arange(16)[:, None]).sum(2)
        return torch.cat([distances, self.scores(x).flatten(2).sigmoid()], 1)


class YoloV8(nn.Module):
    """Widths and depths of the nano model."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.third = nn.Sequential(
            *(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), C2f(32, 32, 1, skip=True)),
            *(Conv(32, 64, 3, 2), C2f(64, 64, 2, skip=True)),
        )
        self.fourth = nn.Sequential(Conv(64, 128, 3, 2), C2f(128, 128, 2, skip=True))
        self.fifth = nn.Sequential(Conv(128, 256, 3, 2), C2f(256, 256, 1, skip=True), Pyramid(256))
        self.up = nn.Upsample(scale_factor=2)
        self.up_fourth, self.up_third = C2f(384, 128, 1), C2f(192, 64, 1)
        self.down_third, self.down_fourth = Conv(64, 64, 3, 2), Conv(128, 128, 3, 2)
        self.out_fourth, self.out_fifth = C2f(192, 128, 1), C2f(384, 256, 1)
        self.heads = nn.ModuleList(Head(channels, classes) for channels in (64, 128, 256))

    def forward(self, x: Tensor) -> Tensor:
        third = self.third(x)
        fourth = self.fourth(third)
        fifth = self.fifth(fourth)
        middle = self.up_fourth(torch.cat([self.up(fifth), fourth], 1))
        fine = self.up_third(torch.cat([self.up(middle), third], 1))
        middle = self.out_fourth(torch.cat([self.down_third(fine), middle], 1))
        coarse = self.out_fifth(torch.cat([self.down_fourth(middle), fifth], 1))
        found = [h(y) for h, y in zip(self.heads, (fine, middle, coarse), strict=True)]
        return torch.cat(found, 2)
