"""The models of the zoo: a function for each, registered by name."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

KINDS = (  # the modules of this folder that hold entries
    *("text", "decoders", "seq2seq", "cnns", "vision_transformers", "dense_vision", "diffusion"),
    *("audio", "recurrent", "graphs", "tabular", "series", "quantised", "control_flow"),
)


class Sample(NamedTuple):
    """A module and how to call it.

    `inputs` makes keyword arguments for some sizes. `shapes` are the dynamic shapes of
    `aoti.export`, with sizes by name.
    """

    module: nn.Module
    inputs: Callable[..., dict[str, Any]]
    shapes: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: `sizes` to call it with, of which the first is the example."""

    name: str
    kind: str
    source: str  # the package that it is from
    make: Callable[[], Sample]
    sizes: tuple[dict[str, int], ...]
    tolerance: float  # of the largest element of an output
    ci: bool  # whether it is one of the few that run at every push


ENTRIES: dict[str, Entry] = {}


def model(
    source: str, *sizes: dict[str, int], tolerance: float = 1e-4, ci: bool = False
) -> Callable[[Callable[[], Sample]], Callable[[], Sample]]:
    """Register the function of an entry."""

    def register(make: Callable[[], Sample]) -> Callable[[], Sample]:
        name = make.__name__
        assert name not in ENTRIES, f"there are two models {name}"
        kind = make.__module__.replace("_", " ")
        ENTRIES[name] = Entry(name, kind, source, make, sizes or ({},), tolerance, ci)
        return make

    return register


def entries() -> dict[str, Entry]:
    """All entries by name."""
    declare_torchvision()
    for kind in KINDS:
        importlib.import_module(kind)
    return ENTRIES


@functools.cache
def declare_torchvision() -> None:
    """Declare the operators of torchvision, whose library does not load beside torch for CPUs.

    torchvision cannot be imported otherwise. The models of the zoo call none of these operators.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.submodule_search_locations is None:
        return
    source = Path(spec.submodule_search_locations[0], "_meta_registrations.py").read_text()
    names = re.findall(
        r'@(?:register_meta|torch\.library\.register_fake)\("(?:\w+::)?(\w+)"', source
    )
    for name in names:
        torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")


def made(entry: Entry) -> tuple[Sample, list[dict[str, Any]]]:
    """The module of an entry and its arguments for all sizes: the same in every process."""
    torch.manual_seed(0)
    sample = entry.make()
    sample.module.eval()
    calls = []
    for seed, sizes in enumerate(entry.sizes):
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            calls.append(sample.inputs(**sizes))
    return sample, calls


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, in the order in which a package takes or gives them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from tensors(vars(value))


def ids(vocabulary: int, *shape: int) -> Tensor:
    """Random token ids."""
    return torch.randint(1, vocabulary, shape)


def noise(*shape: int) -> Tensor:
    """Random floats."""
    return torch.randn(shape)


def mask(batch: int, length: int) -> Tensor:
    """An attention mask: every row but the first ends a little earlier."""
    lengths = length - torch.arange(batch).clamp(max=length // 2)
    return (torch.arange(length) < lengths[:, None]).long()
