"""Packed sequences while a module is traced: padded ones, and their lengths.

torch packs sequences one behind the other, in sizes that depend on the lengths. A traced program
keeps them padded. The two tensors of a `PackedSequence` are then objects that only recurrent layers
and `pad_packed_sequence` can use: any other use is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.utils import rnn

UNSUPPORTED = (
    "an exported packed sequence can be passed to LSTM, GRU and RNN layers of float32 without "
    "dropout in training, and to pad_packed_sequence"
)


class _StandIn:
    """Passes as a tensor in arguments of torch's functions."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{UNSUPPORTED}: not {name!r}")

    @classmethod
    def __torch_function__(cls, func: Any, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"{UNSUPPORTED}: not to {getattr(func, '__name__', func)!r}")


@dataclass
class PackedData(_StandIn):
    """The data of a packed sequence.

    Attributes
    ----------
    padded : Tensor
        (batch, steps, features) or (steps, batch, features).
    lengths : Tensor
        (batch,): the steps of each sequence.
    batch_first : bool
        The order of `padded`.
    """

    padded: Tensor
    lengths: Tensor
    batch_first: bool

    @property
    def dtype(self) -> torch.dtype:
        """The type of the data."""
        return self.padded.dtype

    @property
    def device(self) -> torch.device:
        """Where the data is."""
        return self.padded.device

    def dim(self) -> int:
        """The rank of packed data."""
        return self.padded.dim() - 1

    def size(self, dim: int) -> int:
        """The size of a dimension behind the first, which is all steps of all sequences."""
        if dim not in range(1 - self.dim(), 0):
            raise NotImplementedError(f"{UNSUPPORTED}: its size is not known")
        return self.padded.size(dim)


@dataclass
class BatchSizes(_StandIn):
    """The number of sequences that have each step."""

    of: PackedData

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return torch.device("cpu")

    def __getitem__(self, step: int) -> int:
        """The size of the batch: all sequences have the first step."""
        if step != 0:
            raise NotImplementedError(f"{UNSUPPORTED}: its batch sizes are not known")
        return self.of.padded.shape[0 if self.of.batch_first else 1]

    def size(self, _: int) -> int:
        """The length of the longest sequence."""
        longest: Any = self.of.lengths.max().item()
        torch._check(longest >= 0)  # type: ignore[no-untyped-call]
        steps = self.of.padded.shape[1 if self.of.batch_first else 0]
        torch._check(longest <= steps)  # type: ignore[no-untyped-call]
        return longest  # type: ignore[no-any-return]


def pack(x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[PackedData, BatchSizes]:
    """Replaces ``torch._pack_padded_sequence``."""
    data = PackedData(x, lengths, batch_first)
    return data, BatchSizes(data)


def pad(
    data: PackedData, _: BatchSizes, batch_first: bool, value: float, length: int
) -> tuple[Tensor, Tensor]:
    """Replaces ``torch._pad_packed_sequence``."""
    padded, lengths = data.padded, data.lengths
    if batch_first != data.batch_first:
        padded = padded.transpose(0, 1)
    time = 1 if batch_first else 0
    steps = padded.shape[time]
    if value != 0:
        places = torch.arange(steps, device=padded.device)
        within = places < lengths[:, None] if batch_first else places[:, None] < lengths
        padded = torch.where(within[:, :, None], padded, value)
    if not statically_known_true(length == steps):
        padded = padded.narrow(time, 0, length)
    return padded, lengths


@contextlib.contextmanager
def any_batch() -> Iterator[None]:
    """Let layers check their states without taking the size of the batch for a constant.

    Orders are inverted by sorting them: torch's way writes numbers to places, so that the checks of
    indices cannot know the result.
    """
    hidden, cell = nn.RNNBase.get_expected_hidden_size, nn.LSTM.get_expected_cell_size
    with (
        patch.object(nn.RNNBase, "get_expected_hidden_size", _of_any_batch(hidden)),
        patch.object(nn.LSTM, "get_expected_cell_size", _of_any_batch(cell)),
        patch.object(rnn, "invert_permutation", _inverted),
    ):
        yield


def _inverted(order: Tensor | None) -> Tensor | None:
    return None if order is None else order.argsort()


def _of_any_batch(expected: Callable[..., Any]) -> Callable[..., Any]:
    def size(layer: nn.RNNBase, x: Any, batch_sizes: Any) -> Any:
        if not isinstance(batch_sizes, BatchSizes):
            return expected(layer, x, batch_sizes)
        layers, _, features = expected(layer, x.padded, None)
        return layers, batch_sizes[0], features

    return size
